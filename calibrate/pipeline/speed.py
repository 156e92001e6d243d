"""What changed graphs take of the original's time on this machine: measured, and said loudly if nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec
import numpy as np

from promptray.calibrate.image_set import Progress
from promptray.calibrate.interleaved import interleaved
from promptray.calibrate.pipeline.scores import Model
from promptray.export.draft import Draft
from promptray.export.stage_cache import StageCache
from promptray.runtime.bundle.manifest import Graph
from promptray.runtime.golden import read_golden
from promptray.runtime.machine_class import machine_class
from promptray.runtime.preprocess import normalise

_ROUNDS = 21
Measure = Callable[[Mapping[str, Callable[[], object]]], Mapping[str, float]]


class TimeRatio(msgspec.Struct, frozen=True, kw_only=True):
    """One call of a changed graph beside the one it replaces, batch 1, as the runtime calls it.

    Attributes
    ----------
    graph, precision : str
    ratio, low, high : float
        Median and quartiles of its time as a share of the other's in the same round.
    size : float
        Its bytes as a share of the other's.
    """

    graph: str
    precision: str
    ratio: float
    low: float
    high: float
    size: float

    def words(self, what: str) -> str:
        """Say it in one sentence; `what` it was compared with."""
        share = f"{self.ratio:.2f} ({self.low:.2f} to {self.high:.2f})"
        said = f"{self.graph} {self.precision}: {share} of the time of {what} for one call, "
        said += f"{self.size:.2f} of its size, on a machine of the class {machine_class()}."
        if self.ratio < 1:
            return said
        gain = "all it saves is bytes" if self.size < 1 else "and no smaller: leave that graph as it was"
        return f"NOT FASTER HERE, {gain}. {said}"


def time_notes(
    original: Draft, fp32: Draft, changed: Draft, stages: StageCache, progress: Progress
) -> list[str]:
    """Say what changed graphs take of fp32's time and, where there is a student, it of the original's."""
    notes = [each.words("fp32") for each in time_ratios(fp32, changed, stages, progress)]
    if fp32 is not original:
        taught = time_ratios(original, fp32, stages, progress)
        notes += [f"The student: {each.words('the original')}" for each in taught]
    return notes


def measured(alternatives: Mapping[str, Callable[[], object]]) -> Mapping[str, float]:
    """Time the alternative ``changed`` against ``before``."""
    return interleaved(alternatives, rounds=_ROUNDS, baseline="before")["changed"]


def time_ratios(
    before: Draft, changed: Draft, stages: StageCache, progress: Progress, *, measure: Measure = measured
) -> list[TimeRatio]:
    """Time every graph that was changed. A stage, so that a second build says the same.

    A busy machine widens the quartiles. No build is refused for its time: a promise must not hang on what
    else a machine does.

    Parameters
    ----------
    before, changed : Draft
        With the same heads and findings.
    stages : StageCache
    progress : callable
    measure : callable, optional
        Callables ``before`` and ``changed`` -> `ratio`, `ratio_q1`, `ratio_q3`.
    """
    there = {graph.title: before.read(graph.file) for graph in before.manifest.graphs}
    made = {graph.title: (graph, changed.read(graph.file)) for graph in changed.manifest.graphs}
    todo = [title for title, (_, content) in made.items() if content != there[title]]
    digests = {title: [_sha256(there[title]), _sha256(made[title][1])] for title in todo}
    key = stages.key("speed", {"graphs": digests, "machine": machine_class(), "model": Model(before).key})

    def run(out: Path) -> None:
        models, found = (Model(before), Model(changed)), []
        for number, title in enumerate(todo):
            progress("time", title, number / len(todo))
            graph, content = made[title]
            row = measure(dict(zip(("before", "changed"), _calls(graph, *models), strict=True)))
            found.append(
                TimeRatio(
                    graph=title,
                    precision=graph.precision,
                    ratio=row["ratio"],
                    low=row["ratio_q1"],
                    high=row["ratio_q3"],
                    size=len(content) / len(there[title]),
                )
            )
        (out / "ratios.json").write_bytes(msgspec.json.encode(found))

    folder, _ = stages.run("speed", key, run)
    return msgspec.json.decode((folder / "ratios.json").read_bytes(), type=list[TimeRatio])


def _calls(graph: Graph, *models: Model) -> list[Callable[[], object]]:
    """Return a call of the graph by each model, on the first golden picture or finding."""
    return [_call(graph, model) for model in models]


def _call(graph: Graph, model: Model) -> Callable[[], object]:
    graphs, heads = model.compiled(None)
    manifest = model.draft.manifest
    if graph.role == "text":
        head = manifest.text_head
        assert head is not None  # noqa: S101 - a text graph has a head
        first = manifest.findings_of(head.name)[0]
        return lambda: graphs.encode(first.key, first.prompts, first.negative_prompts, allow_empty=True)
    pixels = normalise(_picture(model.draft), manifest.preprocessing)
    if graph.role == "image":
        return lambda: graphs.features(pixels)
    features, bound = graphs.features(pixels), heads[graph.head or ""]
    return lambda: bound.run(features)


def _picture(draft: Draft) -> np.ndarray:
    return read_golden(draft).pictures[:1]


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
