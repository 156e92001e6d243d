"""Effect of each block on the scores, and the search for the fastest mix that a gate accepts."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest

from promptray.calibrate.quantise import Int8, Prepared
from promptray.calibrate.quantise.search import fastest_mix
from promptray.calibrate.quantise.sensitivity import ImageScores, Sensitivity, sensitivity


@pytest.fixture(scope="module")
def prepared(reference: Any) -> Prepared:
    return Prepared(reference.graphs["image"], Int8(calibration="max"), reference.feeds)


@pytest.fixture(scope="module")
def ranked(reference: Any, prepared: Prepared) -> Sensitivity:
    score = ImageScores(reference.score.head, reference.feeds[:8], "none")
    return sensitivity(prepared, score, reference.graphs["image"])


def test_every_group_is_measured_on_the_scores_and_ranked(ranked: Sensitivity, prepared: Prepared) -> None:
    assert {each.group for each in ranked.groups} == set(prepared.groups)
    means = [each.mean for each in ranked.groups]
    assert means == sorted(means, reverse=True)
    assert means[-1] > 0
    assert (ranked.images, ranked.findings) == (8, 4)
    assert max(means) < 2 * ranked.everything.mean
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


class Fake:
    """Groups with costs; its graphs are the names of what was kept."""

    def __init__(self, **products: int) -> None:
        self.groups = products

    def make(self, keep: Any = ()) -> Any:
        return msgspec.structs.replace(MADE, content=",".join(sorted(keep)).encode())


MADE: Any = msgspec.defstruct("Made", [("content", bytes)], frozen=True)(b"")


def kept(content: bytes) -> set[str]:
    return set(content.decode().split(",")) - {""}


@pytest.mark.parametrize(
    ("needed", "expected"),
    [
        (set(), set()),
        ({"a"}, {"a"}),
        ({"b"}, {"b"}),
        ({"c"}, {"c"}),
        ({"a", "c"}, {"a", "c"}),
        ({"a", "b", "c"}, {"a", "b", "c"}),
    ],
)
def test_only_what_the_gate_needs_stays_high(needed: set[str], expected: set[str]) -> None:
    fake: Any = Fake(a=10, b=30, c=20, d=40)
    mix = fastest_mix(fake, ["a", "b", "c", "d"], lambda content: needed <= kept(content))
    assert mix.best is not None
    assert kept(mix.best.content) == expected
    assert len(mix.trials) <= 2 * 4
    accepted = [trial for trial in mix.trials if trial.accepted]
    assert accepted[-1].kept == sorted(expected)
    assert accepted[-1].share == max(trial.share for trial in accepted)
    assert accepted[-1].share == pytest.approx(1 - sum(fake.groups[each] for each in expected) / 100)


def test_the_costliest_group_is_given_back_first() -> None:
    """Either of a and b must stay high: the search keeps the cheap one."""
    fake: Any = Fake(a=10, b=70, c=20)
    mix = fastest_mix(fake, ["b", "a", "c"], lambda content: len(kept(content)) >= 1)
    assert mix.best is not None
    assert len(kept(mix.best.content)) == 1


def test_none_does_is_said(prepared: Prepared) -> None:
    fake: Any = Fake(a=1, b=2)
    mix = fastest_mix(fake, ["a", "b"], lambda content: False)
    assert mix.best is None
    assert [trial.kept for trial in mix.trials] == [[], ["a"]]  # with both kept nothing would be quantised
    with pytest.raises(ValueError, match="every group once"):
        fastest_mix(fake, ["a"], lambda content: True)


def test_a_real_gate_on_real_scores_accepts_a_mix(
    reference: Any, prepared: Prepared, ranked: Sensitivity
) -> None:
    whole = np.abs(reference.score(prepared.make().content) - reference.logits).max()
    bound = 0.7 * float(whole)

    def gate(content: bytes) -> bool:
        return bool(np.abs(reference.score(content) - reference.logits).max() <= bound)

    mix = fastest_mix(prepared, [each.group for each in ranked.groups], gate)
    assert not mix.trials[0].accepted
    assert mix.best is not None
    assert gate(mix.best.content)
    assert 0 < len(mix.best.report.quantised) < len(prepared.layers)
