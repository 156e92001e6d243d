"""The reference model's sizes, its text side on disk, and its checkpoint in the published layout."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptray.export.models.carzero import CARZero, CARZeroSizes
from promptray.runtime.text import TextEncoder

HEADS = 4

#: What a published checkpoint's configuration says and matters for inference.
CONFIGURATION = {
    "experiment_name": "promptray_reference",
    "model": {
        "norm": False,
        "text": {
            "last_n_layers": 4,
            "aggregate_method": "sum",
            "norm": False,
            "embedding_dim": 64,
            "agg_tokens": True,
        },
        "fusion": {"d_model": 64, "class_num": 1, "decoder_number_layer": 4},
    },
    "data": {"text": {"word_num": 97}, "image": {"imsize": 256}},
    "transforms": {"norm": "CXR_MAE", "random_crop": {"crop_size": 224}},
}


def reference_sizes(vocab_size: int) -> CARZeroSizes:
    """Return sizes small enough for a CPU and 144 images; what the layout fixes is as published."""
    return CARZeroSizes(
        width=64,
        image_size=224,
        patch_size=16,
        vit_depth=3,
        vit_heads=HEADS,
        vit_mlp=128,
        vocab_size=vocab_size,
        positions=128,
        token_types=2,
        bert_depth=4,
        bert_heads=HEADS,
        bert_mlp=128,
        fusion_ffn=256,
        mlp_widths=(256, 128, 64),
    )


def write_text_config(folder: Path, sizes: CARZeroSizes) -> None:
    """Write ``config.json`` beside ``vocab.txt``, as text models are published."""
    config = {
        "model_type": "bert",
        "do_lower_case": False,
        "hidden_act": "gelu",
        "hidden_size": sizes.width,
        "intermediate_size": sizes.bert_mlp,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": sizes.positions,
        "num_attention_heads": sizes.bert_heads,
        "num_hidden_layers": sizes.bert_depth,
        "pad_token_id": 0,
        "type_vocab_size": sizes.token_types,
        "vocab_size": sizes.vocab_size,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def save_checkpoint(model: CARZero, path: Path, *, epochs: int, steps: int) -> None:
    """Write the weights as Lightning 1.1.4 would, without its optimizer state."""
    state = OrderedDict((f"CARZero.{key}", value.detach().cpu()) for key, value in model.state_dict().items())
    content: dict[str, Any] = {
        "epoch": epochs,
        "global_step": steps,
        "pytorch-lightning_version": "1.1.4",
        "state_dict": state,
        "hyper_parameters": CONFIGURATION,
    }
    torch.save(content, path)


def tokenise(encoder: TextEncoder, prompts: Sequence[str]) -> dict[str, Tensor]:
    """Encode prompts as the runtime does, padded to the longest: the text inputs of `CARZero.forward`."""
    encoded = [encoder.encode(prompt).arrays for prompt in prompts]
    longest = max(arrays["input_ids"].shape[1] for arrays in encoded)
    inputs = {
        name: torch.zeros(len(prompts), longest, dtype=torch.int64)
        for name in ("input_ids", "attention_mask")
    }
    word_index = torch.full((len(prompts), longest), -1, dtype=torch.int64)
    for row, arrays in enumerate(encoded):
        tokens = arrays["input_ids"].shape[1]
        inputs["input_ids"][row, :tokens] = torch.from_numpy(arrays["input_ids"][0])
        inputs["attention_mask"][row, :tokens] = 1
        word_index[row, :tokens] = torch.from_numpy(arrays["word_matrix"][0]).argmax(dim=0)
    return {**inputs, "token_type_ids": torch.zeros_like(word_index), "word_index": word_index}
