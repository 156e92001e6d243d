"""Changed graphs are timed beside those they replace; the clock is given, nothing is really timed."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import msgspec
import pytest

import promptray.calibrate
from promptray.calibrate.interleaved import interleaved, interleaved_times
from promptray.calibrate.pipeline.speed import TimeRatio, time_ratios
from promptray.export.draft import Draft
from promptray.export.stage_cache import StageCache
from promptray.runtime.bundle import Bundle


def draft_of(bundle: Path) -> Draft:
    opened = Bundle.open(bundle)
    return Draft(opened.manifest, {name: bundle / name for name in opened.manifest.files})


def test_every_changed_graph_is_called_beside_the_one_before_and_no_other(
    carzero_bundle: Path, tmp_path: Path
) -> None:
    before = draft_of(carzero_bundle)
    graphs = {graph.title: graph for graph in before.manifest.graphs}
    changed = ("head findings", "text")  # longer by bytes that mean nothing to ONNX Runtime
    same = {graphs[title].file: before.read(graphs[title].file) + b"\x7a\x00" for title in changed}
    asked: list[list[str]] = []

    def measure(calls: Mapping[str, Callable[[], object]]) -> dict[str, float]:
        for call in calls.values():
            call()
        asked.append(list(calls))
        return {"ratio": 0.5, "ratio_q1": 0.4, "ratio_q3": 0.6}

    stages = StageCache(tmp_path, promptray.calibrate)
    after = replace(before, files={**before.files, **same})
    found = time_ratios(before, after, stages, lambda *_: None, measure=measure)
    assert [each.graph for each in found] == list(changed)
    assert asked == [["before", "changed"]] * 2
    assert all(each.size > 1 for each in found)
    again = time_ratios(before, after, stages, lambda *_: None, measure=lambda calls: {})
    assert again == found


RATIO = TimeRatio(graph="image", precision="int8-qdq", ratio=0.5, low=0.4, high=0.6, size=0.3)


@pytest.mark.parametrize(
    ("changes", "loud", "words"),
    [
        ({}, False, "image int8-qdq: 0.50 (0.40 to 0.60) of the time of fp32 for one call, 0.30 of its size"),
        ({"ratio": 1.2}, True, "all it saves is bytes"),
        ({"ratio": 1.0, "size": 1.01}, True, "no smaller: leave that graph as it was"),
    ],
)
def test_what_is_no_faster_is_said_loudly(changes: dict[str, float], loud: bool, words: str) -> None:
    said = msgspec.structs.replace(RATIO, **changes).words("fp32")
    assert said.startswith("NOT FASTER HERE") == loud
    assert words in said


def test_alternatives_take_turns_and_ratios_are_of_a_round() -> None:
    order: list[str] = []
    now = 0.0

    def call(name: str, seconds: float) -> Callable[[], None]:
        def run() -> None:
            nonlocal now
            order.append(name)
            now += seconds

        return run

    found = interleaved({"a": call("a", 2.0), "b": call("b", 1.0)}, rounds=3, baseline="a", clock=lambda: now)
    assert "".join(order[:4]) == "aabb"
    assert [sorted(order[start : start + 2]) for start in range(4, 10, 2)] == [["a", "b"]] * 3
    assert (found["a"]["ratio"], found["b"]["ratio"]) == (1.0, 0.5)
    assert found["b"]["median_ms"] == pytest.approx(1000)


def test_nobody_always_follows_the_same_one() -> None:
    def order() -> list[str]:
        found: list[str] = []
        interleaved_times({name: partial(found.append, name) for name in "abcd"}, rounds=24, warm=0)
        return found

    found = order()
    assert all(sorted(found[start : start + 4]) == list("abcd") for start in range(0, 96, 4))
    assert set(itertools.pairwise(found)) >= set(itertools.permutations("abcd", 2))
    assert order() == found
