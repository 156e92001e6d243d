"""The bundles that are measured: published sizes or small ones, random weights."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.full_size import write_biomedclip, write_carzero
from benchmarks.full_size_bundle import build_random

PROMPTS = 14


def carzero(work: Path, *, small: bool) -> Path:
    """Build CARZero's bundle with the first prompts of the pack; return its recipe."""
    write = partial(write_carzero, depth=4, heads=1) if small else write_carzero
    return build_random(work / f"carzero{'-small' * small}", write, PROMPTS, cache=work / "cache")


def dual_encoder(work: Path, *, small: bool) -> Path:
    """Build BiomedCLIP's bundle, small with a `vit_tiny_patch16_224`; return its recipe."""
    write = partial(write_biomedclip, heads=3) if small else write_biomedclip
    return build_random(work / f"biomedclip{'-small' * small}", write, PROMPTS, cache=work / "cache")


def bundle_of(recipe: Path) -> Path:
    """Return the bundle that was built of a recipe here."""
    return recipe.parent / "model.bundle"
