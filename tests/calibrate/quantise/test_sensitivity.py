"""Effect of each block on the scores, and the search for the fastest mix that a gate accepts."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec
import numpy as np
import pytest

from promptray.calibrate.quantise import Int8, Prepared, quantise
from promptray.calibrate.quantise.once import quantise_with_ranges_once
from promptray.calibrate.quantise.search import fastest_mix
from promptray.calibrate.quantise.sensitivity import ImageScores, Sensitivity, sensitivity


@pytest.fixture(scope="module")
def prepared(reference: Any) -> Prepared:
    return Prepared(reference.graphs["image"], Int8(calibration="max"), reference.feeds)


@pytest.fixture(scope="module")
def ranked(reference: Any, prepared: Prepared) -> Sensitivity:
    score = ImageScores(reference.score.head, reference.feeds[:8], "none")
    return sensitivity(
        prepared.groups, lambda on: score(only(prepared, on) if on else reference.graphs["image"])
    )


def only(prepared: Prepared, on: Collection[str]) -> bytes:
    """The graph with these groups quantised and no other."""
    return prepared.make(keep=set(prepared.groups) - set(on)).content


def test_every_group_is_measured_on_the_scores_and_ranked(ranked: Sensitivity, prepared: Prepared) -> None:
    assert {each.group for each in ranked.groups} == set(prepared.groups)
    spreads = [each.spread for each in ranked.groups]
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[-1] > 0
    assert all(each.worst >= each.spread for each in ranked.groups)
    assert (ranked.images, ranked.findings) == (8, 4)
    assert max(spreads) < 2 * ranked.everything.spread
    assert msgspec.json.decode(msgspec.json.encode(ranked), type=Sensitivity) == ranked


def test_the_numbers_are_those_of_a_graph_with_that_group_alone(
    ranked: Sensitivity, prepared: Prepared, reference: Any
) -> None:
    worst = ranked.groups[0]
    alone = prepared.make(keep=set(prepared.groups) - {worst.group})
    assert {layer.group for layer in alone.report.quantised} == {worst.group}
    difference = np.abs(reference.score(alone.content) - reference.logits)[:8]
    assert worst.mean == pytest.approx(float(difference.mean()), rel=1e-4)
    assert worst.greatest == pytest.approx(float(difference.max()), rel=1e-4)


def test_the_table_is_for_people(ranked: Sensitivity) -> None:
    section = ranked.table()
    assert [row[0] for row in section.rows] == [*(each.group for each in ranked.groups), "everything"]
    assert sum(float(row[1].rstrip("%")) for row in section.rows[:-1]) == pytest.approx(100, abs=1)
    assert "8 images x 4 findings" in section.title


GROUPS = {"a": 10, "b": 30, "c": 20, "d": 40}


@pytest.mark.parametrize("needed", [set(), {"a"}, {"b"}, {"c"}, {"a", "c"}, {"a", "b", "c"}])
def test_only_what_the_gate_needs_stays_high(needed: set[str]) -> None:
    mix = fastest_mix(GROUPS, ["a", "b", "c", "d"], lambda kept: (needed <= set(kept), "said"))
    assert mix.best is not None
    assert set(mix.best.kept) == needed
    assert len(mix.trials) <= 2 * len(GROUPS)
    assert mix.best.share == max(trial.share for trial in mix.trials if trial.accepted)
    assert mix.best.share == pytest.approx(1 - sum(GROUPS[each] for each in needed) / 100)
    assert {trial.verdict for trial in mix.trials} == {"said"}


def test_the_costliest_group_is_given_back_first() -> None:
    """Two of the three must stay high: the search keeps the cheap ones."""
    groups = {"a": 10, "b": 70, "c": 20}
    mix = fastest_mix(groups, ["b", "a", "c"], lambda kept: (len(kept) >= 1, None))
    assert [trial.kept for trial in mix.trials] == [[], ["b"]]
    mix = fastest_mix({**groups, "d": 1}, ["b", "a", "c", "d"], lambda kept: ({"a"} <= set(kept), None))
    assert [trial.kept for trial in mix.trials] == [[], ["b"], ["b", "a"], ["a"]]


def test_none_does_is_said() -> None:
    seen: list[list[str]] = []
    mix = fastest_mix(
        {"a": 1, "b": 2}, ["a", "b"], lambda kept: (False, None), progress=lambda each: seen.append(each.kept)
    )
    assert mix.best is None
    assert seen == [[], ["a"]]  # with both kept nothing would be quantised
    with pytest.raises(ValueError, match="every group once"):
        fastest_mix({"a": 1, "b": 2}, ["a"], lambda kept: (True, None))


def test_a_real_gate_on_real_scores_accepts_a_mix(
    reference: Any, prepared: Prepared, ranked: Sensitivity
) -> None:
    whole = np.abs(reference.score(prepared.make().content) - reference.logits).max()
    bound = 0.7 * float(whole)

    def gate(kept: list[str]) -> tuple[bool, float]:
        worst = np.abs(reference.score(prepared.make(keep=kept).content) - reference.logits).max()
        return bool(worst <= bound), float(worst)

    mix = fastest_mix(prepared.groups, ranked.most_sensitive, gate)
    assert not mix.trials[0].accepted
    assert mix.best is not None
    assert mix.best.verdict <= bound
    assert 0 < len(mix.best.kept) < len(prepared.groups)


def test_ranges_are_taken_once_for_all_choices_of_layers(
    reference: Any, prepared: Prepared, monkeypatch: pytest.MonkeyPatch
) -> None:
    block = list(prepared.groups)[1]
    scheme = Int8(calibration="max", keep=[block])
    expected = quantise(reference.graphs["image"], scheme, reference.feeds)
    change = quantise_with_ranges_once()
    change(reference.graphs["image"], Int8(calibration="max"), reference.feeds)
    monkeypatch.setattr(Prepared, "__init__", None)  # a second time would fail
    assert change(reference.graphs["image"], scheme, reference.feeds) == expected
