"""A dual encoder in open_clip itself, with the weights that a recipe's bundle was built of."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from promptray.export.families.open_clip_folder import CONFIG, read_open_clip_folder
from promptray.export.torchvision_guard import ensure_torchvision_imports
from promptray.runtime.bundle import Bundle
from promptray.runtime.text import TextEncoder

ensure_torchvision_imports()

import open_clip  # noqa: E402 - imports torchvision
import timm  # noqa: E402
from open_clip.factory import load_checkpoint  # noqa: E402
from open_clip.model import CustomTextCLIP as CustomTextCLIP  # noqa: E402

VERSION = f"open_clip {open_clip.__version__}, torch {torch.__version__}"
#: Width of an image tower that the configuration has no published name of -> timm's name of it.
_TOWERS = {192: "vit_tiny_patch16_224"}
_TEXT = "text.transformer."


def open_clip_model(recipe: Path) -> CustomTextCLIP:
    """Make open_clip's model as its configuration says, and load the published file with open_clip's loader.

    open_clip asks a hub for the text tower's configuration; here it finds it in a folder.
    """
    stated = yaml.safe_load(recipe.read_text(encoding="utf-8"))
    checkpoint = recipe.parent / stated["checkpoint"]
    text_model = recipe.parent / stated["text_model"] if "text_model" in stated else None
    folder = read_open_clip_folder(checkpoint, text_model)
    config = json.loads((checkpoint.parent / CONFIG).read_text(encoding="utf-8"))["model_cfg"]
    state = torch.load(checkpoint, weights_only=True, mmap=True)
    named = config["vision_cfg"]["timm_model_name"]
    width = state["visual.trunk.norm.weight"].shape[0]
    bert = recipe.parent / "peers" / "bert"
    bert.mkdir(parents=True, exist_ok=True)
    (bert / "config.json").write_text(json.dumps(_bert_config(state, folder.text.heads)), encoding="utf-8")
    model = CustomTextCLIP(
        embed_dim=config["embed_dim"],
        vision_cfg={
            **config["vision_cfg"],
            "timm_model_name": named if timm.is_model(named) else _TOWERS[width],
        },
        text_cfg={**config["text_cfg"], "hf_model_name": str(bert), "hf_model_pretrained": False},
    )
    load_checkpoint(model, str(checkpoint))
    return model.eval().requires_grad_(False)


def _bert_config(state: dict[str, Tensor], heads: int) -> dict[str, Any]:
    vocabulary, width = state[f"{_TEXT}embeddings.word_embeddings.weight"].shape
    layers = {key.split(".")[4] for key in state if key.startswith(f"{_TEXT}encoder.layer.")}
    return {
        "model_type": "bert",
        "vocab_size": vocabulary,
        "hidden_size": width,
        "num_hidden_layers": len(layers),
        "num_attention_heads": heads,
        "intermediate_size": len(state[f"{_TEXT}encoder.layer.0.intermediate.dense.bias"]),
    }


def token_ids(bundle: Path, prompts: Sequence[str]) -> Tensor:
    """Tokenize prompts as open_clip does: int64 (N, context), padded with 0."""
    opened = Bundle.open(bundle)
    rule = opened.manifest.text
    assert rule is not None, "a dual encoder has texts"
    encoder = TextEncoder(rule, opened.read(rule.tokenizer))
    ids = torch.zeros((len(prompts), rule.context), dtype=torch.int64)
    for row, prompt in zip(ids, prompts, strict=True):
        own = torch.from_numpy(encoder.encode(prompt).arrays["input_ids"][0])
        row[: len(own)] = own
    return ids


class ImageScores(nn.Module):
    """What a user wraps to score images against texts encoded before: pixels -> scaled cosines.

    Parameters
    ----------
    model : CustomTextCLIP
    texts : Tensor, (N, D)
        Unit vectors.
    """

    matrix: Tensor

    def __init__(self, model: CustomTextCLIP, texts: Tensor) -> None:
        super().__init__()
        self.visual = model.visual
        self.register_buffer("matrix", model.logit_scale.exp() * texts.T)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return logits (B, N)."""
        scores: Tensor = nn.functional.normalize(self.visual(pixels), dim=-1) @ self.matrix
        return scores
