"""The least gate: on this machine, the golden pictures must still get the scores that were gated.

Of the original's graphs these are its own in torch, fp32; of changed ones those graphs' own, as they were
gated (`gated_answers`). The golden set of a student holds the student's answers in torch, fp32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from promptray.runtime.answers import Answers
from promptray.runtime.bound_heads import BoundChain, BoundHead
from promptray.runtime.bundle.gated import Gated, GatedHead
from promptray.runtime.bundle.manifest import Head, Manifest
from promptray.runtime.engines.bounds import is_exact
from promptray.runtime.engines.facts import EngineGate, EngineSet, HeadGate
from promptray.runtime.errors import BundleError
from promptray.runtime.gated_answers import ROUNDING, read_gated, widest
from promptray.runtime.graphs import BundleContent, Graphs
from promptray.runtime.preprocess import normalise


@dataclass(frozen=True)
class GoldenSet:
    """Stored inputs and answers, of the original or of the student in the place of its image tower.

    Attributes
    ----------
    pictures : uint8 or float32 (G, height, width), or (G, height, width, 3) where colour is kept
        Pictures as the network sees them, levels 0..255, before normalisation.
    answers : mapping of str to Answers
        By head.
    """

    pictures: NDArray[Any]
    answers: Mapping[str, Answers]


@dataclass(frozen=True)
class HeadReport:
    """What the self-test found of one head: largest absolute differences to the stored answers.

    Attributes
    ----------
    head : str
    against : {"original", "gated answers"}
        Which answers the bound is for: those of changed graphs are their own, as they were gated.
    score_error, score_tolerance : float
    map_error, map_tolerance : float or None
        None for a head without maps.
    golden : {"original", "student"}
        Whose torch arithmetic in fp32 the golden set holds.
    golden_score_error, golden_map_error : float or None
        The same to that, for information: what quantising costs on these pictures, or of a student that is
        not quantised what exporting costs. A student's teacher is not in the bundle.
    """

    head: str
    against: Literal["original", "gated answers"]
    score_error: float
    score_tolerance: float
    map_error: float | None
    map_tolerance: float | None
    golden: Literal["original", "student"]
    golden_score_error: float
    golden_map_error: float | None


@dataclass(frozen=True)
class GoldenReport:
    """What the self-test found.

    Attributes
    ----------
    pictures : int
        How many golden pictures were scored.
    heads : tuple of HeadReport
    text_error : float or None
        Largest difference of a finding encoded again, as a share of its largest number; None where no text
        was encoded.
    level_error : float or None
        Largest difference of pixels prepared on the device to the CPU's, in grey levels; None where the CPU
        prepares images.
    """

    pictures: int
    heads: tuple[HeadReport, ...]
    text_error: float | None = None
    level_error: float | None = None


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
    except (safetensors.SafetensorError, KeyError) as error:  # KeyError: a type that numpy has not
        raise _malformed(name, "not a safetensors file") from error
    count, rule = len(manifest.golden.images), manifest.preprocessing
    channels = (3,) if rule.colour == "rgb" else ()
    expected = {"pictures": (count, rule.height, rule.width, *channels)}
    for head in manifest.heads:
        findings = len(manifest.findings_of(head.name))
        expected[f"logits.{head.name}"] = (count, findings)
        if head.map:
            expected[f"maps.{head.name}"] = (count, findings, *head.map.grid)
    found = {key: tensor.shape for key, tensor in tensors.items()}
    dtypes = {key: rule.levels if key == "pictures" else "float32" for key in expected}
    if found != expected or any(tensors[key].dtype != dtype for key, dtype in dtypes.items()):
        raise _malformed(name, f"expected {expected}, found {found}")
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise _malformed(name, "a stored answer that is no number")
    answers = {
        head.name: Answers(tensors[f"logits.{head.name}"], tensors.get(f"maps.{head.name}"))
        for head in manifest.heads
    }
    return GoldenSet(tensors["pictures"], answers)


def answers(
    graphs: Graphs, heads: Mapping[str, BoundHead], pixels: NDArray[np.float32], *, batch: int = 1
) -> dict[str, Answers]:
    """Score network inputs against every prompt of the heads.

    Parameters
    ----------
    graphs : Graphs
    heads : mapping of str to BoundHead
        Each with at least one prompt.
    pixels : float32 (G, channels, height, width)
    batch : int
        Images of one call.
    """
    return answers_of(graphs.chain(heads.values()), heads, pixels, batch=batch) if heads else {}


def answers_of(
    chain: BoundChain, heads: Iterable[str], pixels: NDArray[np.float32], *, batch: int = 1
) -> dict[str, Answers]:
    """Score as :func:`answers` does, with a chain that is there: on a GPU one holds memory for each shape.

    Parameters
    ----------
    chain : BoundChain
    heads : iterable of str
        Names of the chain's heads, in its order.
    pixels, batch
        As for :func:`answers`.
    """
    found = [chain.run(pixels[first : first + batch]) for first in range(0, len(pixels), batch)]
    return {
        name: Answers.joined([Answers(*scores) for scores in parts])
        for name, parts in zip(heads, zip(*found, strict=True), strict=True)
    }


def check_golden(
    bundle: BundleContent,
    graphs: Graphs,
    heads: Mapping[str, BoundHead],
    *,
    pictures: int | None = None,
) -> GoldenReport:
    """Score golden pictures on this machine and compare with the stored answers.

    Parameters
    ----------
    bundle : BundleContent
    graphs : Graphs
        The bundle's compiled graphs.
    heads : mapping of str to BoundHead
        Every head bound to the bundle's OWN bank, in the manifest's order of findings.
    pictures : int, optional
        Only the first few; all by default.

    Raises
    ------
    BundleError
        ``bundle.golden`` when a score or a map is further off than its head's tolerance, of engines that of
        the gate they passed; ``site.corrupt`` where that is so wide that it could not fail.
    """
    manifest, golden = bundle.manifest, read_golden(bundle)
    gated, engines = graphs.gated, graphs.engine_set
    if engines is not None:
        _require_narrow(engines, golden)
    own = read_gated(bundle, gated, golden.answers).heads if gated else {}
    scored = [head for head in manifest.heads if heads[head.name].prompts]
    count = len(golden.pictures) if pictures is None else min(pictures, len(golden.pictures))
    pixels = normalise(golden.pictures[:count], manifest.preprocessing)
    found = answers(graphs, {head.name: heads[head.name] for head in scored}, pixels)
    reports = []
    for head in scored:
        answer, stored = found[head.name], golden.answers[head.name].first(count)
        bound = own[head.name].first(count) if head.name in own else stored
        tolerances = tolerances_of(head, gated, engines.gate if engines else None)
        reports.append(_report(manifest, head, tolerances, head.name in own, answer, bound, stored))
    for report in reports:
        _require_within(report, f"{manifest.name} {bundle.short_hash}, head {report.head}", engines)
    return GoldenReport(count, tuple(reports))


def _require_narrow(engines: EngineSet, golden: GoldenSet) -> None:
    """Refuse engines whose gate let scores be so far off that findings cannot be told apart."""
    gate = engines.gate
    held = [] if is_exact(engines.graphs) else [*gate.heads]
    for each in [*held, *(gate.prepare.heads if gate.prepare else [])]:
        stored = golden.answers[each.head]
        most = widest(stored, stored) * (1 + ROUNDING)
        if each.score_tolerance > most:
            raise BundleError(
                "site.corrupt",
                "the gate of these engines has a bound that no gate has: their entry was changed",
                artefact=f"{engines.key}, head {each.head}",
                expected=f"scores within at most {most:.3g}",
                found=f"within {each.score_tolerance:.3g}",
                cure=f"`promptray engine BUNDLE --remove {engines.key}`, then build it again",
            )


def tolerances_of(head: Head, gated: Gated | None, gate: EngineGate | None) -> tuple[float, float | None]:
    """Return how near scores and maps must come: as the head says, or as changed ones were gated."""
    held: list[GatedHead | HeadGate] = [*(gated.heads if gated else []), *(gate.heads if gate else [])]
    for each in held:
        if each.head == head.name:
            return each.score_tolerance, each.map_tolerance
    return head.score_tolerance, head.map.tolerance if head.map else None


def _report(
    manifest: Manifest,
    head: Head,
    tolerances: tuple[float, float | None],
    changed: bool,
    found: Answers,
    bound: Answers,
    stored: Answers,
) -> HeadReport:
    # NaN does not get lost on the way: numpy's maximum keeps it, and no comparison with it is true.
    score_error, map_error = bound.errors(found.logits, found.maps)
    golden_score_error, golden_map_error = stored.errors(found.logits, found.maps)
    return HeadReport(
        head=head.name,
        against="gated answers" if changed else "original",
        score_error=score_error,
        score_tolerance=tolerances[0],
        map_error=map_error if head.map else None,
        map_tolerance=tolerances[1],
        golden="original" if manifest.provenance.distilled is None else "student",
        golden_score_error=golden_score_error,
        golden_map_error=golden_map_error if head.map else None,
    )


def _require_within(report: HeadReport, artefact: str, engines: EngineSet | None) -> None:
    maps_within = report.map_tolerance is None or (report.map_error or 0.0) <= report.map_tolerance
    if report.score_error <= report.score_tolerance and maps_within:
        return
    has_maps = report.map_tolerance is not None
    cure = "run `promptray doctor`; reinstall onnxruntime; do not use this machine until it passes"
    if engines is not None:
        artefact += f", engines {engines.key}"
        command = f"promptray engine BUNDLE --backend {engines.backend} --rebuild"
        cure = f"build and gate the engines anew: `{command}`"
    elif report.against != "original":
        cure += "; or build the bundle from its recipe on this machine"
    raise BundleError(
        "bundle.golden",
        "on this machine the model gives other numbers than "
        + ("its original" if report.against == "original" else "when it was gated"),
        artefact=artefact,
        expected=f"scores within {report.score_tolerance:g}"
        + (f", maps within {report.map_tolerance:g}" if has_maps else ""),
        found=f"scores off by {report.score_error:.3g}"
        + (f", maps by {report.map_error:.3g}" if has_maps else ""),
        cure=cure,
    )


def _malformed(name: str, found: str) -> BundleError:
    return BundleError(
        "bundle.format", "the golden set does not hold what it must", artefact=name, found=found,
        cure="build the bundle again",
    )  # fmt: skip
