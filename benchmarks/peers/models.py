"""The bundles that are measured, built with random weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

from benchmarks.full_size import FAMILIES
from benchmarks.full_size_bundle import build_random

Size = Literal["published", "thin", "small"]
#: Thin towers have the published widths and few blocks; small ones only show that a command runs. That of the
#: dual encoder is timm's `vit_tiny_patch16_224`, for open_clip makes no other than timm's.
_SIZES: dict[tuple[str, Size], dict[str, Any]] = {
    ("carzero", "published"): {},
    ("carzero", "thin"): {"depth": 4},
    ("carzero", "small"): {"depth": 4, "heads": 1},
    ("biomedclip", "published"): {},
    ("biomedclip", "thin"): {"depth": 1},
    ("biomedclip", "small"): {"heads": 3},
}
#: Prompts of a bundle; a measurement adds more.
_PROMPTS = 14


def built(family: str, size: Size, work: Path) -> tuple[Path, Path]:
    """Build a bundle with the first prompts of the pack; return its recipe and the bundle."""
    write = partial(FAMILIES[family], **_SIZES[family, size])
    recipe = build_random(work / f"{family}-{size}", write, _PROMPTS, cache=work / "cache")
    return recipe, recipe.parent / "model.bundle"
