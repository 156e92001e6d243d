"""Graphs that engines are compiled from, computed as they are written and held against the golden answers."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from promptray.calibrate.quantise.session import FAULTS, open_session
from promptray.export.draft import Draft
from promptray.export.stage_cache import StageCache
from promptray.runtime.answers import Answers
from promptray.runtime.bound_heads import BoundHead
from promptray.runtime.bundle.manifest import Head
from promptray.runtime.bundle.parity import CheckedSources
from promptray.runtime.bundle.validate import LARGEST_TOLERANCE
from promptray.runtime.engines.facts import HeadGate
from promptray.runtime.engines.sources import SourceSet, source_sets
from promptray.runtime.errors import BuildError, ScoringError
from promptray.runtime.gated_answers import widest
from promptray.runtime.golden import GoldenSet, read_golden
from promptray.runtime.graphs import own_bank
from promptray.runtime.machine_class import machine_class
from promptray.runtime.preprocess import normalise

Array = NDArray[Any]


class AsWritten:
    """A graph that ONNX Runtime computes node by node, so that every Q/DQ pair rounds where it stands.

    Parameters
    ----------
    content : bytes
        An ONNX file.
    title : str
        What errors call it.
    resident : mapping of str to array, optional
        Inputs that stay the same.
    """

    def __init__(self, content: bytes, title: str, resident: Mapping[str, Array] | None = None) -> None:
        self._content, self._title, self._resident = content, title, dict(resident or {})
        self._session = open_session(content)
        self._taken = {value.name for value in self._session.get_inputs()}
        self._outputs = [value.name for value in self._session.get_outputs()]

    def bind(self, resident: Mapping[str, Array]) -> AsWritten:
        """Keep inputs for every run."""
        return AsWritten(self._content, self._title, resident)

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run and return every output by name.

        Raises
        ------
        BuildError
            ``quantise.graph``.
        """
        feeds = {name: array for name, array in {**self._resident, **inputs}.items() if name in self._taken}
        try:
            found = self._session.run(self._outputs, feeds)
        except FAULTS as error:
            line = (str(error).splitlines() or [""])[0][:300]
            raise BuildError(
                "quantise.graph",
                f"ONNX Runtime cannot run the graph as it is written: {line}",
                artefact=self._title,
                cure="report the precision and the family",
            ) from error
        return dict(zip(self._outputs, found, strict=True))


def check_sources(made: Draft, fp32: Draft, stages: StageCache) -> list[CheckedSources]:
    """Hold every set of sources with a graph that the bundle does not run against the golden answers.

    Parameters
    ----------
    made : Draft
        With a section `engines`.
    fp32 : Draft
        Whose golden answers and banks count.
    stages : StageCache

    Raises
    ------
    BuildError
        ``gate.failed`` with what was off.
    """
    running = {graph.file for graph in made.manifest.graphs}
    sets = [
        each
        for each in source_sets(made.manifest)
        if not running.issuperset(source.file for source in each.sources)
    ]
    return [_checked(each, made, fp32, stages) for each in sets]


def _checked(asked: SourceSet, made: Draft, fp32: Draft, stages: StageCache) -> CheckedSources:
    used = [made.manifest.golden.tensors, *(head.bank.file for head in fp32.manifest.heads)]
    key = stages.key(
        "engine-check",
        {
            "sources": {each.title: _sha256(made.read(each.file)) for each in asked.sources},
            "files": [_sha256(fp32.read(name)) for name in used],
            "set": [asked.precision, asked.opset],
            "machine": machine_class(),
        },
    )

    def run(out: Path) -> None:
        try:
            answers = _answers(asked, made, fp32)
        except ScoringError as error:  # NaN or infinity
            raise _refused(asked.precision, asked.opset, fp32, "numbers", error.message) from error
        (out / "checked.json").write_bytes(msgspec.json.encode(_compared(asked, fp32, answers)))

    folder, _ = stages.run("engine-check", key, run)
    found = msgspec.json.decode((folder / "checked.json").read_bytes(), type=CheckedSources)
    for head in found.heads:
        _require_within(found, head, fp32)
    return found


def _answers(asked: SourceSet, made: Draft, fp32: Draft) -> dict[str, Answers]:
    """Return what the set gives of the golden pictures, by head."""
    graphs = {each.head: AsWritten(made.read(each.file), each.file) for each in asked.sources}
    heads = {
        head.name: BoundHead.of(graphs[head.name], own_bank(fp32, head).batches())
        for head in fp32.manifest.heads
    }
    found: dict[str, list[Any]] = {name: [] for name in heads}
    for picture in read_golden(fp32).pictures:
        features = graphs[None].run({"pixels": normalise(picture[None], fp32.manifest.preprocessing)})
        for name, head in heads.items():
            found[name].append(head.run(features))
    return {
        name: Answers(
            np.concatenate([logits for logits, _ in each]),
            None if each[0][1] is None else np.concatenate([maps for _, maps in each]),
        )
        for name, each in found.items()
    }


def _compared(asked: SourceSet, fp32: Draft, answers: Mapping[str, Answers]) -> CheckedSources:
    golden = read_golden(fp32)
    return CheckedSources(
        precision=asked.precision,
        opset=asked.opset,
        backend=f"onnxruntime-cpu {ort.__version__}, as written",
        heads=[_of_head(asked, head, golden, answers[head.name]) for head in fp32.manifest.heads],
    )


def _of_head(asked: SourceSet, head: Head, golden: GoldenSet, own: Answers) -> HeadGate:
    """Compare; fp32 graphs of an older opset are held as strictly as those that run."""
    original = golden.answers[head.name]
    score_error, map_error = original.errors(own.logits, own.maps)
    exact = asked.precision == "fp32"
    map_tolerance = None
    if head.map is not None:
        map_tolerance = head.map.tolerance if exact else LARGEST_TOLERANCE
    return HeadGate(
        head=head.name,
        score_error=score_error,
        score_tolerance=head.score_tolerance if exact else widest(original, own),
        map_error=map_error if head.map else None,
        map_tolerance=map_tolerance,
    )


def _require_within(found: CheckedSources, head: HeadGate, fp32: Draft) -> None:
    maps_within = head.map_tolerance is None or (head.map_error or 0.0) <= head.map_tolerance
    if head.score_error <= head.score_tolerance and maps_within:
        return
    maps = "" if head.map_tolerance is None else f", maps within {head.map_tolerance:g}"
    off = "" if head.map_error is None else f", maps by {head.map_error:.3g}"
    expected = f"scores of {head.head} within {head.score_tolerance:.3g}{maps}"
    off_by = f"scores off by {head.score_error:.3g}{off}"
    raise _refused(found.precision, found.opset, fp32, expected, off_by)


def _refused(precision: str, opset: int, fp32: Draft, expected: str, found: str) -> BuildError:
    return BuildError(
        "gate.failed",
        f"the {precision} graphs that engines would be compiled from give other golden answers, "
        "computed as they are written",
        artefact=f"{fp32.manifest.name}, opset {opset}",
        expected=expected,
        found=found,
        cure="keep more layers high (recipe key tensorrt.precision.image.keep, or .head.keep; `promptray "
        "sensitivity` ranks them), or take another precision",
    )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
