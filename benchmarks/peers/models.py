"""The bundles that are measured, built with random weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any, Literal

from benchmarks.full_size import FAMILIES
from benchmarks.full_size_bundle import build_random
from promptray.runtime.backends import OF_THE_HOST, load_backend
from promptray.runtime.errors import ScoringError

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


def sections() -> dict[str, Any]:
    """Return what the recipes say beside the model: peers run on OpenVINO too, so PromptRay must."""
    return {"backends": [name for name in OF_THE_HOST if _here(name)]}


def _here(name: str) -> bool:
    try:
        load_backend(name, threads=1)
    except ScoringError as error:
        if error.code != "backend.unavailable":
            raise
        return False
    return True


def built(family: str, size: Size, work: Path) -> tuple[Path, Path]:
    """Build a bundle with the first prompts of the pack, gated on every processor backend that is here.

    Returns its recipe and the bundle.
    """
    write = partial(FAMILIES[family], **_SIZES[family, size])
    recipe = build_random(
        work / f"{family}-{size}", write, _PROMPTS, cache=work / "cache", sections=sections()
    )
    return recipe, recipe.parent / "model.bundle"
