"""What a run against peers says: medians with intervals, equal scores first, targets missed or met."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from benchmarks.peers import contest as contests
from benchmarks.peers.carzero import AS_CALLED, ENCODED
from benchmarks.peers.carzero import targets as carzero_targets
from benchmarks.peers.contest import Contestant, best_peer, contest, show
from benchmarks.peers.dual_encoder import targets as dual_encoder_targets
from benchmarks.peers.head_share import targets as head_share_targets
from benchmarks.peers.overhead import targets as overhead_targets
from benchmarks.peers.result import (
    Comparison,
    HeadShare,
    Interval,
    Kind,
    Overhead,
    PeersResult,
    Row,
    best_of,
    interval,
    ratio,
)
from benchmarks.result_file import document

SCORES = np.array([[0.5, -1.0]], np.float32)


def flat(value: float, low: float | None = None) -> Interval:
    return Interval(median=value, q1=value, q3=value, low=value if low is None else low, high=value)


def scoring(name: str, kind: Kind, scores: Any = SCORES) -> Contestant:
    return Contestant(name, kind, "1", lambda: scores)


def row(name: str, kind: Kind, milliseconds: float, times: Interval) -> Row:
    return Row(contestant=name, kind=kind, milliseconds=flat(milliseconds), ratio=times, score_error=0.0)


def compared(title: str, prompts: int, *rows: Row) -> Comparison:
    return Comparison(
        title=title, prompts=prompts, rounds=5, score_spread=1.0, score_tolerance=1e-4, rows=list(rows)
    )


def test_an_interval_is_of_the_median() -> None:
    found = interval([float(number) for number in range(101)])
    assert (found.median, found.q1, found.q3) == (50.0, 25.0, 75.0)
    assert 30 < found.low < 45
    assert 55 < found.high < 70
    assert interval([2.0, 2.0]) == flat(2.0)
    assert interval([1.0, 9.0, 1.0]) == interval([1.0, 9.0, 1.0]), "the same numbers, the same interval"


def test_ratios_are_of_a_round() -> None:
    assert ratio([2.0, 8.0, 6.0], [1.0, 4.0, 3.0]) == flat(2.0)
    assert best_of({"a": [3.0, 3.0], "b": [1.0, 9.0, 1.0]}) == "b"


def test_scores_are_held_equal_before_anything_is_timed() -> None:
    own = scoring("PromptRay (x)", "promptray")
    for scores in (SCORES + 2e-4, SCORES[:, :1], SCORES * np.float32(np.nan)):
        with pytest.raises(AssertionError, match="peer"):
            contest("c", [own, scoring("peer", "peer", scores)], rounds=2, score_tolerance=1e-4, pause=0)


@pytest.mark.parametrize("name", ["contest", "own"])
def test_scores_are_held_equal_with_python_o_too(name: str) -> None:
    source = (Path(contests.__file__).parent / f"{name}.py").read_text(encoding="utf-8")
    tree = ast.parse(source)
    assert any(isinstance(node, ast.Raise) for node in ast.walk(tree))
    assert not any(isinstance(node, ast.Assert) for node in ast.walk(tree)), "python -O leaves it out"


def test_another_precision_is_stated_and_is_no_peer() -> None:
    contestants = [
        scoring("PromptRay (x)", "promptray"),
        scoring("peer", "peer", SCORES + np.float32(5e-5)),
        scoring("bf16", "other precision", SCORES + np.float32(0.25)),
    ]
    absent = Row(contestant="Optimum", kind="peer", not_run="it is not installed")
    found = contest("c", contestants, [absent], rounds=3, score_tolerance=1e-4, pause=0)
    errors = {each.contestant: each.score_error for each in found.rows}
    assert errors == {
        "PromptRay (x)": 0.0,
        "peer": pytest.approx(5e-5, rel=1e-2),
        "bf16": 0.25,
        "Optimum": None,
    }
    assert best_peer(found).contestant == "peer"
    assert (found.prompts, found.rounds, found.score_spread) == (2, 3, 0.75)


def test_a_table_says_who_was_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    absent = Row(contestant="Optimum", kind="peer", not_run="it is not installed")
    show(compared("c", 14, row("PromptRay (x)", "promptray", 2.0, flat(1.0)), absent))
    printed = capsys.readouterr().out
    assert "not run: it is not installed" in printed
    assert "1.00 (1.00-1.00) [1.00, 1.00]" in printed


def test_carzeros_targets_are_those_at_192_prompts() -> None:
    def at(prompts: int, name: str, times: float) -> Comparison:
        return compared("c", prompts, row(name, "peer", 1.0, flat(times)))

    found = [at(14, ENCODED, 1.0), at(192, ENCODED, 5.4), at(192, AS_CALLED, 61.0)]
    assert [each.met for each in carzero_targets(found)] == [False, True]


@pytest.mark.parametrize(("low", "met"), [(0.97, True), (0.96, False)])
def test_the_dual_encoders_target_is_the_lower_bound_of_the_best_peer(low: float, met: bool) -> None:
    found = compared(
        "Dual encoder, texts encoded before",
        14,
        row("PromptRay (x)", "promptray", 2.0, flat(1.0)),
        row("slow", "peer", 3.0, flat(1.5)),
        row("quick", "peer", 2.0, flat(1.0, low=low)),
        row("bf16", "other precision", 1.0, flat(0.5)),
    )
    (target,) = dual_encoder_targets([found])
    assert "quick" in target.what
    assert target.met == met


def test_overhead_and_head_share_have_bounds() -> None:
    def around(milliseconds: float) -> Overhead:
        times = flat(milliseconds)
        return Overhead(model="m", prompts=100, rounds=2, engine=times, scorer=times, overhead=times)

    assert [each.met for each in overhead_targets([around(0.3), around(0.31)])] == [True, False]

    def share(prompts: int, value: float) -> HeadShare:
        return HeadShare(prompts=prompts, rounds=2, image=flat(1), head=flat(1), share=flat(value))

    found = head_share_targets([share(14, 0.09), share(192, 0.3), share(1024, 2.0)])
    assert [each.met for each in found] == [False, True]


def test_the_document_is_of_the_schema() -> None:
    whole = PeersResult(
        commit="a" * 40, date="2026-01-31", machine={"cores": 2}, threads=2, towers="small",
        comparisons=[compared("c", 14, row("PromptRay (x)", "promptray", 2.0, flat(1.0)))],
    )  # fmt: skip
    assert json.loads(document(whole))["comparisons"][0]["rows"][0]["ratio"]["median"] == 1.0
    with pytest.raises(msgspec.ValidationError):
        document(msgspec.structs.replace(whole, commit="main"))
