"""Bundles that several tests read, each built once, with their recipes and pictures.

The reference model quantised and gated, on pieces of the golden images; the same with sources of engines; a
tiny ConvNeXt with a student.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from filelock import FileLock
from PIL import Image

from promptray.calibrate.pipeline import build
from promptray.calibrate.quantise import quantise
from promptray.runtime.gate_limits import LIMITS
from tests import convnext_tiny
from tests.cache_copy import copy_cache
from tests.calibrate.pipeline.students import lenient, student_recipe

ROOT = Path(__file__).parents[3]
GOLDEN = ROOT / "export" / "golden"
GATE, CALIBRATION = 700, 64
SCHEMES = {"image": {"scheme": "int8-qdq"}, "head": {"scheme": "fp16"}, "text": {"scheme": "int8-dynamic"}}

#: Precisions of a section `tensorrt`.
MIXED = {"image": "int8-qdq", "head": "fp16"}

Recipe = Callable[..., Path]
Make = Callable[..., Path]


def write_pieces(folder: Path, count: int, seed: int) -> Path:
    """Cut pieces of other place, size and brightness out of the golden images."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    films = [np.asarray(Image.open(path).convert("L")) for path in sorted(GOLDEN.glob("*.png"))]
    for number in range(count):
        film = films[number % len(films)]
        size = [int(side * random.uniform(0.7, 1.0)) for side in film.shape]
        top, left = (
            int(random.integers(0, side - part + 1)) for side, part in zip(film.shape, size, strict=True)
        )
        piece = film[top : top + size[0], left : left + size[1]]
        levels = 255 * (piece / 255.0) ** random.uniform(0.8, 1.25)
        Image.fromarray(levels.astype(np.uint8)).resize((160, 160)).save(folder / f"{number:04}.png")
    return folder


def reference_recipe(folder: Path, pieces: Path, **changes: Any) -> Path:
    """Write the reference model's recipe with sections to quantise and gate; None removes a key."""
    source = ROOT / "reference"
    content = yaml.safe_load((source / "recipe.yaml").read_text(encoding="utf-8"))
    content |= {
        "checkpoint": str(source / "carzero_reference.ckpt"),
        "text_model": str(source / "text_model"),
        "quantise": {
            **SCHEMES,
            "bank": "float16",
            "calibration": {"images": str(pieces / "calibration"), "source": "pieces of films, seed 1"},
        },
        "gate": {"images": str(pieces / "gate"), "source": "pieces of films, seed 2"},
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "recipe.yaml"
    kept = {key: value for key, value in content.items() if value is not None}
    path.write_text(yaml.safe_dump(kept, sort_keys=False), encoding="utf-8")
    return path


def tensorrt_section(few: Path, **changes: Any) -> dict[str, Any]:
    """Return a section `tensorrt` with ranges from a few pictures; None removes a key."""
    asked = {"precision": MIXED, "calibration": {"images": str(few), "source": "eight pieces"}, **changes}
    return {key: value for key, value in asked.items() if value is not None}


@pytest.fixture(scope="session")
def pieces(shared_dir: Path) -> Path:
    """Folders ``gate`` and ``calibration`` of pictures. Read only."""
    folder = shared_dir / "pieces"
    shared_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(shared_dir / "pieces.lock"):
        if not folder.exists():
            write_pieces(shared_dir / "pieces.partial" / "gate", GATE, 2)
            write_pieces(shared_dir / "pieces.partial" / "calibration", CALIBRATION, 1)
            (shared_dir / "pieces.partial").rename(folder)
    return folder


@pytest.fixture(scope="session")
def gated_bundle(shared_dir: Path, reference_bundle: Path, pieces: Path) -> Path:
    """The reference model quantised and gated on this machine. Read only; its stages are in ``cache``."""
    output = shared_dir / "gated.bundle"
    with FileLock(shared_dir / "gated.lock"):
        if not output.exists():
            build(reference_recipe(shared_dir / "gated", pieces), output, cache=shared_dir / "cache")
    return output


@pytest.fixture
def cache(gated_bundle: Path, tmp_path: Path) -> Path:
    """A copy of the cache in which every stage of the gated bundle is finished."""
    return copy_cache(gated_bundle.parent / "cache", tmp_path)


@pytest.fixture
def recipe(tmp_path: Path, pieces: Path) -> Recipe:
    """``recipe(**changes)`` writes the gated bundle's recipe with changes."""
    return lambda **changes: reference_recipe(tmp_path, pieces, **changes)


@pytest.fixture(scope="session")
def few(shared_dir: Path) -> Path:
    """A few pictures to take ranges from. Read only."""
    folder = shared_dir / "few-pieces"
    with FileLock(shared_dir / "few-pieces.lock"):
        if not folder.exists():
            write_pieces(shared_dir / "few-pieces.partial", 8, 1).rename(folder)
    return folder


@pytest.fixture(scope="session")
def typed_bundle(shared_dir: Path, reference_bundle: Path, few: Path) -> Path:
    """The reference model with sources of fp16 and int8 engines, also for TensorRT 8.6. Read only."""
    output = shared_dir / "typed.bundle"
    with FileLock(shared_dir / "typed.lock"):
        if not output.exists():
            asked = tensorrt_section(few, opset_17=True, images={"tuned": 1, "most": 4}, workspace="512 MiB")
            path = reference_recipe(shared_dir / "typed", few, quantise=None, gate=None, tensorrt=asked)
            build(path, output, cache=shared_dir / "cache")
    return output


@pytest.fixture
def make(tmp_path: Path, typed_bundle: Path, few: Path) -> Make:
    """``make(**section)`` builds a bundle of these keys, with the typed bundle's stages at hand."""

    def made(change: Any = quantise, **changes: Any) -> Path:
        asked = tensorrt_section(few, **changes)
        path = reference_recipe(tmp_path, few, quantise=None, gate=None, tensorrt=asked)
        build(path, tmp_path / "made.bundle", cache=typed_bundle.parent / "cache", change=change)
        return tmp_path / "made.bundle"

    return made


@pytest.fixture(scope="session")
def learning(shared_dir: Path) -> Path:
    """A folder with the recipe, its pictures, and a cache with the teacher. Read only."""
    folder = shared_dir / "learning"
    shared_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(shared_dir / "learning.lock"):
        if not folder.exists():
            made = shared_dir / "learning.partial"
            student_recipe(made)
            plain = convnext_tiny.write_recipe(made / "plain")
            build(plain, made / "teacher.bundle", cache=made / "cache")
            made.rename(folder)
    return folder


@pytest.fixture(scope="session")
def let_through(shared_dir: Path, learning: Path) -> Path:
    """A student that was let through by wide limits. Read only; its stages are in ``cache`` beside it."""
    folder = shared_dir / "student"
    with FileLock(shared_dir / "student.lock"), pytest.MonkeyPatch.context() as patch:
        if not folder.exists():
            patch.setitem(LIMITS, "student", lenient())
            made = Path(shutil.copytree(learning, shared_dir / "student.partial"))
            build(made / "recipe.yaml", made / "student.bundle", cache=made / "cache")
            made.rename(folder)
    return folder / "student.bundle"
