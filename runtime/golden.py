"""The least gate: on this machine, the golden pictures must still get the original's scores."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from promptray.runtime.errors import BundleError
from promptray.runtime.graphs import BoundHead, BundleContent, Graphs
from promptray.runtime.preprocess import normalise


@dataclass(frozen=True)
class GoldenSet:
    """Stored inputs and answers.

    Attributes
    ----------
    pictures : uint8 or float32 (G, height, width), or (G, height, width, 3) where colour is kept
        Pictures as the network sees them, levels 0..255, before normalisation.
    logits : float32 (G, findings)
        The original's fp32 scores.
    maps : float32 (G, findings, grid rows, grid columns), or None
    """

    pictures: NDArray[Any]
    logits: NDArray[np.float32]
    maps: NDArray[np.float32] | None


@dataclass(frozen=True)
class GoldenReport:
    """What the self-test found.

    Attributes
    ----------
    pictures : int
        How many golden pictures were scored.
    score_error, map_error : float
        Largest absolute differences to the stored answers; `map_error` is 0 without maps.
    text_error : float or None
        Largest difference of a finding encoded again, as a share of its largest number; None where no text
        was encoded.
    """

    pictures: int
    score_error: float
    map_error: float
    text_error: float | None = None


def read_golden(bundle: BundleContent) -> GoldenSet:
    """Read the golden set of a bundle.

    Raises
    ------
    BundleError
        ``bundle.hash`` when the file was changed; ``bundle.format`` when it does not hold what it must.
    """
    manifest = bundle.manifest
    name = manifest.golden.tensors
    try:
        tensors = safetensors.numpy.load(bundle.read(name))
    except safetensors.SafetensorError as error:
        raise _malformed(name, "not a safetensors file") from error
    count, findings = len(manifest.golden.images), len(manifest.findings)
    rule = manifest.preprocessing
    channels = (3,) if rule.colour == "rgb" else ()
    expected = {"pictures": (count, rule.height, rule.width, *channels), "logits": (count, findings)}
    if manifest.head.map:
        expected["maps"] = (count, findings, *manifest.head.map.grid)
    found = {key: tensor.shape for key, tensor in tensors.items()}
    dtypes = {key: rule.levels if key == "pictures" else "float32" for key in expected}
    if found != expected or any(tensors[key].dtype != dtype for key, dtype in dtypes.items()):
        raise _malformed(name, f"expected {expected}, found {found}")
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise _malformed(name, "a stored answer that is no number")
    return GoldenSet(tensors["pictures"], tensors["logits"], tensors.get("maps"))


def check_golden(
    bundle: BundleContent, graphs: Graphs, head: BoundHead, *, pictures: int | None = None
) -> GoldenReport:
    """Score golden pictures on this machine and compare with the stored answers.

    Parameters
    ----------
    bundle : BundleContent
    graphs : Graphs
        The bundle's compiled graphs.
    head : BoundHead
        The head bound to the bundle's OWN bank, in the manifest's order of findings.
    pictures : int, optional
        Only the first few; all by default.

    Raises
    ------
    BundleError
        ``bundle.golden`` when a score or a map is further off than the bundle's tolerance.
    """
    golden = read_golden(bundle)
    facts = bundle.manifest.golden
    errors: list[tuple[float, float]] = []
    count = len(golden.pictures) if pictures is None else min(pictures, len(golden.pictures))
    for n in range(count):
        pixels = normalise(golden.pictures[n : n + 1], bundle.manifest.preprocessing)
        logits, maps = head.run(graphs.features(pixels))
        score_error = float(np.abs(logits[0] - golden.logits[n]).max())
        if golden.maps is None or maps is None:
            map_error = 0.0 if golden.maps is maps else math.inf
        else:
            map_error = float(np.abs(maps[0] - golden.maps[n]).max())
        errors.append((score_error, map_error))
    # NaN must not get lost in a maximum: numpy's keeps it, and no comparison with it is true.
    score_error, map_error = (float(worst) for worst in np.max(errors, axis=0))
    if not (score_error <= facts.score_tolerance and map_error <= facts.map_tolerance):
        raise BundleError(
            "bundle.golden",
            "on this machine the model gives other numbers than its original",
            artefact=f"{bundle.manifest.name} {bundle.short_hash}",
            expected=f"scores within {facts.score_tolerance:g}, maps within {facts.map_tolerance:g}",
            found=f"scores off by {score_error:.3g}, maps by {map_error:.3g}",
            cure="run `promptray doctor`; reinstall onnxruntime; do not use this machine until it passes",
        )
    return GoldenReport(count, score_error, map_error)


def _malformed(name: str, found: str) -> BundleError:
    return BundleError(
        "bundle.format", "the golden set does not hold what it must", artefact=name, found=found,
        cure="build the bundle again",
    )  # fmt: skip
