"""The models that are measured: published sizes, random weights, made into bundles once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.full_size import FAMILIES
from benchmarks.full_size_bundle import build_random
from promptray.runtime.bundle import Bundle

SAMPLES = Path(__file__).parents[2] / "examples" / "samples"


@dataclass(frozen=True)
class Case:
    """A model with a number of prompts."""

    name: str
    family: str
    prompts: int


CASES = {
    case.name: case
    for case in (
        Case("ViT-B/16 dual encoder, 14 prompts", "biomedclip", 14),
        Case("CARZero, 14 prompts", "carzero", 14),
        Case("CARZero, 192 prompts", "carzero", 192),
        Case("ConvNeXt-Base", "convnext", 4),
    )
}


def bundle_of(case: Case, folder: Path, precision: str = "fp16") -> tuple[Bundle, Path]:
    """Build a case's bundle with typed sources of engines; return it and its recipe."""
    own = folder / case.name.replace("/", "-").replace(", ", "-").replace(" ", "-")
    sections = {"tensorrt": section(precision)}
    recipe = build_random(own, FAMILIES[case.family], case.prompts, cache=folder / "cache", sections=sections)
    return Bundle.open(own / "model.bundle"), recipe


def section(precision: str) -> dict[str, Any]:
    """Return what a recipe says of engines: for TensorRT 8.6, too, and to prepare images on the device."""
    return {
        "precision": precision,
        "images": {"tuned": 1, "most": 64},
        "opset_17": precision != "fp8-qdq",  # which it has not
        "prepare": True,
        "calibration": {"images": str(SAMPLES), "source": "the sample radiographs"},
    }


def chosen(names: list[str]) -> list[Case]:
    """Return the cases whose name holds one of the words; all where none is given.

    Raises
    ------
    ValueError
        For a word that no case has.
    """
    unknown = [word for word in names if not any(word.lower() in name.lower() for name in CASES)]
    if unknown:
        raise ValueError(f"no model is called {unknown[0]!r}; there are {', '.join(CASES)}")
    if not names:
        return list(CASES.values())
    return [case for name, case in CASES.items() if any(word.lower() in name.lower() for word in names)]
