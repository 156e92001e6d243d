"""CheXzero's layout in any size with seeded weights, and the oracle: open_clip's CLIP with the same."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from promptray.export.clip_tokenizer import PUBLISHED
from promptray.export.torchvision_guard import ensure_torchvision_imports
from tests.carzero_tiny import build_once, write_golden_images
from tests.plain_recipe import plain_recipe

ensure_torchvision_imports()
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg  # noqa: E402 - imports torchvision
from open_clip.tokenizer import SimpleTokenizer, default_bpe  # noqa: E402

CHECKPOINT = "best_64_5e-05_original_22000_0.864.pt"
#: Findings with their wordings and negative wordings: single ones and an ensemble of three against two.
PAIRS: dict[str, tuple[list[str], list[str]]] = {
    "Atelectasis": (["Atelectasis"], ["no Atelectasis"]),
    "Pleural Effusion": (["Pleural Effusion"], ["no Pleural Effusion"]),
    "No Finding": (["No Finding"], ["no No Finding"]),
    "edema": (
        ["edema", "There's  pulmonary&nbsp;edema, 2/3 of the lung.", "Œdème “diffus”"],
        ["no edema", "lungs aren't congested"],
    ),
}


@dataclass(frozen=True)
class Sizes:
    """Sizes of a CLIP; the defaults are small, a width has 64 for each head."""

    width: int = 128
    depth: int = 3
    mlp: int = 320
    patch: int = 32
    image: int = 224
    text_width: int = 64
    text_depth: int = 2
    text_mlp: int = 192
    context: int = 32
    merges: int = 300
    embed: int = 40

    @property
    def tokens(self) -> int:
        """Rows of the token embedding."""
        return 512 + self.merges + 2


PUBLISHED_SIZES = Sizes(
    width=768, depth=12, mlp=3072, text_width=512, text_depth=12, text_mlp=2048, context=77, merges=48894,
    embed=512,
)  # fmt: skip


def layout(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Return every key of OpenAI's layout with its shape, written out from the published module."""
    shapes: dict[str, tuple[int, ...]] = {
        "positional_embedding": (sizes.context, sizes.text_width),
        "text_projection": (sizes.text_width, sizes.embed),
        "logit_scale": (),
        "visual.class_embedding": (sizes.width,),
        "visual.positional_embedding": (1 + (sizes.image // sizes.patch) ** 2, sizes.width),
        "visual.proj": (sizes.width, sizes.embed),
        "visual.conv1.weight": (sizes.width, 3, sizes.patch, sizes.patch),
        "token_embedding.weight": (sizes.tokens, sizes.text_width),
    }

    def linear(name: str, out: int, into: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (out, into), (out,)

    def norm(name: str, width: int) -> None:
        shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (width,)

    for stem, width, depth, mlp in (
        ("visual.transformer", sizes.width, sizes.depth, sizes.mlp),
        ("transformer", sizes.text_width, sizes.text_depth, sizes.text_mlp),
    ):
        for number in range(depth):
            block = f"{stem}.resblocks.{number}"
            shapes[f"{block}.attn.in_proj_weight"] = (3 * width, width)
            shapes[f"{block}.attn.in_proj_bias"] = (3 * width,)
            linear(f"{block}.attn.out_proj", width, width)
            norm(f"{block}.ln_1", width)
            linear(f"{block}.mlp.c_fc", mlp, width)
            linear(f"{block}.mlp.c_proj", width, mlp)
            norm(f"{block}.ln_2", width)
    norm("visual.ln_pre", sizes.width)
    norm("visual.ln_post", sizes.width)
    norm("ln_final", sizes.text_width)
    return shapes


def random_state(sizes: Sizes, seed: int) -> dict[str, Tensor]:
    """Return seeded weights of the layout, float32, large enough that every one of them counts."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, shape in layout(sizes).items():
        draw = torch.randn(shape, generator=generator)
        if key == "visual.conv1.weight":
            state[key] = draw * (3 * sizes.patch**2) ** -0.5
        elif len(shape) > 1:
            state[key] = draw * (0.5 if "embed" in key else shape[-1] ** -0.5)
        else:
            norm_weight = ".ln_" in f".{key}" and key.endswith("weight")
            state[key] = draw * 0.1 + (1.0 if norm_weight else 0.0)
    state["logit_scale"] = torch.tensor(4.6052)
    return state


def original(sizes: Sizes, state: Mapping[str, Tensor]) -> CLIP:
    """Return open_clip's CLIP with these weights, QuickGELU and all."""
    vision = CLIPVisionCfg(
        layers=sizes.depth, width=sizes.width, patch_size=sizes.patch, image_size=sizes.image,
        mlp_ratio=sizes.mlp / sizes.width,
    )  # fmt: skip
    text = CLIPTextCfg(
        context_length=sizes.context, vocab_size=sizes.tokens, width=sizes.text_width,
        heads=sizes.text_width // 64, layers=sizes.text_depth, mlp_ratio=sizes.text_mlp / sizes.text_width,
    )  # fmt: skip
    model = CLIP(sizes.embed, vision, text, quick_gelu=True)
    model.load_state_dict(dict(state), strict=True)
    return model.eval()


def tokenizer(sizes: Sizes, folder: Path) -> SimpleTokenizer:
    """Return open_clip's tokenizer of the vocabulary in `folder`."""
    return SimpleTokenizer(str(folder / PUBLISHED), context_length=sizes.context)


def merge_lines(count: int) -> list[str]:
    """Return the first lines of CLIP's vocabulary: its version and `count` merges."""
    with gzip.open(default_bpe()) as file:
        return file.read().decode("utf-8").split("\n")[: count + 1]


def write_folder(folder: Path, sizes: Sizes, state: Mapping[str, Tensor]) -> Path:
    """Write weights and vocabulary as published, and return the path of the weights."""
    folder.mkdir(parents=True, exist_ok=True)
    with gzip.open(folder / PUBLISHED, "wb") as file:
        file.write("\n".join(merge_lines(sizes.merges)).encode())
    torch.save(dict(state), folder / CHECKPOINT)
    return folder / CHECKPOINT


def recipe(folder: Path, **changes: Any) -> dict[str, Any]:
    """The recipe as plain values; None removes a key."""
    own = {
        "name": "chexzero-tiny",
        "family": "chexzero",
        "checkpoint": str(folder / CHECKPOINT),
        "findings": [
            {"key": key, "prompt": own, "negative_prompt": negative} for key, (own, negative) in PAIRS.items()
        ],
    }
    return plain_recipe(own, changes)


def write_recipe(folder: Path, **changes: Any) -> Path:
    """Write a tiny model, its recipe and golden images into `folder`; return the recipe."""
    sizes = Sizes()
    write_folder(folder / "model", sizes, random_state(sizes, 1))
    write_golden_images(folder / "golden")
    path = folder / "recipe.yaml"
    content = recipe(folder / "model", **changes)
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def shared_bundle(folder: Path, name: str, **changes: Any) -> Path:
    """Build a bundle of the tiny model below `folder`, once for all test processes that share it."""
    return build_once(folder, name, lambda recipe_folder: write_recipe(recipe_folder, **changes))
