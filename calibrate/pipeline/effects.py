"""The stage that ranks groups of layers by what quantising them does to the scores of images."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from promptray.calibrate.image_set import ImageSet, Progress
from promptray.calibrate.pipeline.gate import ALONE
from promptray.calibrate.pipeline.mixes import Mixes
from promptray.calibrate.pipeline.scores import BLOCK, Model, run
from promptray.calibrate.quantise.sensitivity import Sensitivity, sensitivity
from promptray.export.stage_cache import StageCache
from promptray.runtime.errors import BuildError
from promptray.runtime.preprocess import normalise

_LEAST_IMAGES = 2  # of one there is no spread


def effects(mixes: Mixes, images: ImageSet, stages: StageCache, progress: Progress) -> Sensitivity:
    """Quantise one group at a time and score the images as the runtime does, through all heads.

    Every group's scores are a stage of their own, so a killed run goes on.

    Parameters
    ----------
    mixes : Mixes
    images : ImageSet
    stages : StageCache
    progress : callable

    Raises
    ------
    BuildError
        ``quantise.graph`` where there is no group, ``quantise.calibration`` of a single image, or
        ``quantise.*`` of a graph.
    """
    if len(set(images.sha256s)) < _LEAST_IMAGES:
        raise BuildError(
            "quantise.calibration",
            "one image says nothing of how far images differ",
            artefact=f"section {images.section}",
            expected=f"at least {_LEAST_IMAGES} different images",
            cure="give images like those the model will see",
        )
    if not mixes.groups:
        raise BuildError(
            "quantise.graph",
            "there are no layers to rank or to choose from: the scheme finds none, or `keep` names all",
            artefact=", ".join(mixes.schemes),
            expected="a graph with layers of weights that its scheme quantises and `keep` does not name",
            cure="name another graph, give it another scheme, or take names out of its `keep`; without such "
            "a graph take quantise.search out",
        )
    total = len(mixes.groups) + 2
    done = 0

    def score(on: Collection[str]) -> NDArray[np.float32]:
        nonlocal done
        what = next(iter(on)) if len(on) == 1 else "everything" if on else "nothing quantised"
        progress("sensitivity", f"{what} ({done + 1} of {total})", done / total)
        key = stages.key("effect", {**mixes.key, "on": sorted(on), "pictures": images.sha256s})
        folder, _ = stages.run("effect", key, lambda out: _score(mixes, on, images, out))
        done += 1
        found = safetensors.numpy.load((folder / "logits.safetensors").read_bytes())
        return np.concatenate([found[f"logits.{name}"] for name in _heads(mixes)], axis=1)

    return sensitivity(mixes.groups, score)


def findings(mixes: Mixes) -> list[str]:
    """Return the keys of the findings in the order of the scores, with their head where there are several."""
    manifest, heads = mixes.fp32.manifest, _heads(mixes)
    return [
        each.key if len(heads) == 1 else f"{name}/{each.key}"
        for name in heads
        for each in manifest.findings_of(name)
    ]


def _heads(mixes: Mixes) -> list[str]:
    return [head.name for head in mixes.fp32.manifest.heads]


def _score(mixes: Mixes, on: Collection[str], images: ImageSet, out: Path) -> None:
    if not on:
        tensors = _logits(Model(mixes.fp32), images)
    else:
        with mixes.made(on) as changed:
            tensors = _logits(Model(changed.draft), images)
    (out / "logits.safetensors").write_bytes(safetensors.numpy.save(tensors))


def _logits(model: Model, images: ImageSet) -> dict[str, NDArray[np.float32]]:
    found: dict[str, list[NDArray[np.float32]]] = {}
    for first in range(0, len(images.rows), BLOCK):
        pictures = np.stack(images.pictures(images.rows[first : first + BLOCK]))
        for name, values in run(model, normalise(pictures, images.preprocessing), ALONE).items():
            if name.startswith("logits."):
                found.setdefault(name, []).append(values)
    return {name: np.concatenate(parts) for name, parts in found.items()}
