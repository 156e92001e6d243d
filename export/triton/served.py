"""What Triton's ONNX Runtime backend will run, held against the golden answers before it is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from numpy.typing import NDArray

from promptray.runtime.answers import Answers
from promptray.runtime.backends import HOST, BoundGraph, load_backend
from promptray.runtime.bundle.manifest import Graph, Head
from promptray.runtime.deadline import Deadline
from promptray.runtime.errors import BuildError
from promptray.runtime.gated_answers import read_gated
from promptray.runtime.golden import read_golden, tolerances_of
from promptray.runtime.graphs import BundleContent
from promptray.runtime.preprocess import normalise

#: A graph's bytes, and what they take and give.
Model = tuple[bytes, Graph]


@dataclass(frozen=True)
class ServedHead:
    """What was found of one head, as largest absolute differences over all golden pictures.

    Attributes
    ----------
    head : str
    findings : int
    score_tolerance, score_error : float
        To the golden answers, one image at a time and in the largest batches.
    map_tolerance, map_error : float or None
        Likewise; None for a head without maps.
    batch_error : float
        Of a score, in the largest batch and in one of an image less, to the same image alone.
    """

    head: str
    findings: int
    score_tolerance: float
    score_error: float
    map_tolerance: float | None
    map_error: float | None
    batch_error: float


@dataclass(frozen=True, eq=False)
class Served:
    """Models that passed, and one golden picture on its way through them.

    Attributes
    ----------
    heads : tuple of ServedHead
    pixels : float32 (1, channels, height, width)
    features : mapping of str to array
        What the image graph gives of it.
    """

    heads: tuple[ServedHead, ...]
    pixels: NDArray[Any]
    features: Mapping[str, NDArray[Any]]


def check_served(bundle: BundleContent, image: Model, heads: Sequence[Model], *, max_batch: int) -> Served:
    """Run the models on every golden picture: alone, in the largest batch, and in one of an image less.

    A batch of more images than there are golden pictures holds them several times.

    Parameters
    ----------
    bundle : BundleContent
    image : bytes and Graph
    heads : sequence of bytes and Graph
        With their banks inside, in the manifest's order.
    max_batch : int
        Images of a batch.

    Raises
    ------
    BuildError
        ``gate.failed`` where a score or a map is further off than its head's tolerance.
    """
    manifest, golden = bundle.manifest, read_golden(bundle)
    gated = manifest.gated_for((HOST,))
    stored = {**golden.answers, **(read_gated(bundle, gated, golden.answers).heads if gated else {})}
    pixels = normalise(golden.pictures, manifest.preprocessing)
    backend = load_backend(HOST)
    sizes = sorted({1, max(1, max_batch - 1), max_batch})

    def compiled(model: Model) -> BoundGraph:
        return backend.load(partial(bytes, model[0]), model[1]).bind({})

    first, rest = compiled(image), [compiled(head) for head in heads]
    chain = backend.chain(first, rest)

    def answers(rows: Sequence[int], batch: int) -> list[Answers]:
        calls = [pixels[rows[start : start + batch]] for start in range(0, len(rows), batch)]
        parts = [chain.submit(each, Deadline(None, None)).result().heads for each in calls]
        return [
            Answers.joined([Answers(each["logits"], each.get("maps")) for each in head])
            for head in zip(*parts, strict=True)
        ]

    taken = [_whole_batches(len(pixels), size) for size in sizes]
    by_size = [answers(rows, size) for rows, size in zip(taken, sizes, strict=True)]
    found = [
        _compared(head, stored[head.name], taken, own, tolerances_of(head, gated, None))
        for head, *own in zip(manifest.heads, *by_size, strict=True)
    ]
    for each in found:
        _require_within(each, f"{manifest.name} {bundle.short_hash}, head {each.head}", max_batch)
    return Served(tuple(found), pixels[:1], first.run({"pixels": pixels[:1]}))


def _whole_batches(pictures: int, size: int) -> list[int]:
    """Return the picture at each place of as many full batches as all pictures take."""
    return [place % pictures for place in range(-(-pictures // size) * size)]


def _compared(
    head: Head,
    stored: Answers,
    taken: Sequence[Sequence[int]],
    answers: Sequence[Answers],
    tolerances: tuple[float, float | None],
) -> ServedHead:
    """Hold the answers to the pictures taken against the stored ones, and against the first: those alone."""

    def errors(expected: Answers) -> tuple[float, float]:
        found = [
            expected.of(rows).errors(own.logits, own.maps) for rows, own in zip(taken, answers, strict=True)
        ]
        scores, maps = (
            max(kind, key=lambda error: (error != error, error)) for kind in zip(*found, strict=True)
        )
        return scores, maps

    scores, maps = errors(stored)
    return ServedHead(
        head=head.name,
        findings=stored.logits.shape[1],
        score_tolerance=tolerances[0],
        score_error=scores,
        map_tolerance=tolerances[1],
        map_error=maps if head.map else None,
        batch_error=errors(answers[0])[0],
    )


def _require_within(found: ServedHead, artefact: str, max_batch: int) -> None:
    maps_within = found.map_tolerance is None or (found.map_error or 0.0) <= found.map_tolerance
    if found.score_error <= found.score_tolerance and maps_within:
        return
    raise BuildError(
        "gate.failed",
        "with their banks inside, the graphs give other numbers than were gated",
        artefact=artefact,
        expected=f"scores within {found.score_tolerance:g}"
        + ("" if found.map_tolerance is None else f", maps within {found.map_tolerance:g}"),
        found=f"scores off by {found.score_error:.3g}, batches of {max_batch} by {found.batch_error:.3g}"
        + ("" if found.map_error is None else f", maps off by {found.map_error:.3g}"),
        cure="run `promptray verify` on the bundle; where it passes and batches are off, use `--max-batch 1`",
    )
