"""From logits to scores: independent findings, alternatives, and pairs."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptray.runtime.bundle.manifest import Head, Relation
from promptray.runtime.relation import scores_of
from tests.bundle_factory import made_head

KEYS = ("pneumonia", "edema", "nodule")
logits_of_three = st.lists(st.floats(-1e4, 1e4, width=32), min_size=3, max_size=3)


def head(relation: Relation, activation: Literal["none", "softmax", "sigmoid"]) -> Head:
    return made_head(name="findings", relation=relation, activation=activation)


def score(logits: list[float], relation: Relation, keys: tuple[str, ...] = KEYS) -> list[tuple[object, ...]]:
    activation = "none" if relation == "independent" else "softmax"
    found = scores_of(np.array(logits, np.float32), keys, head(relation, activation))
    assert [each.logit for each in found] == [float(np.float32(each)) for each in logits]
    assert all(each.probability is None and each.flag is None for each in found), "nothing is calibrated"
    return [(each.softmax, each.among) for each in found]


def test_independent_findings_have_no_share() -> None:
    assert score([1, 2, 3], "independent") == [(None, None)] * 3


def test_alternatives_share_one_and_name_their_set() -> None:
    found = score([0, np.log(2), np.log(5)], "exclusive")
    assert [share for share, _ in found] == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=1e-7)
    assert all(among == list(KEYS) for _, among in found)


def test_a_single_alternative_has_no_share() -> None:
    assert score([3], "exclusive", KEYS[:1]) == [(None, None)]


def test_nothing_to_score_is_nothing() -> None:
    assert scores_of(np.empty(0, np.float32), (), head("exclusive", "softmax")) == []


def test_a_pair_shares_one_with_its_negative() -> None:
    """The softmax over (positive, negative) logits, of which only the difference is known."""
    found = score([0, 2, -2], "pair")
    expected = [np.exp(a) / (np.exp(a) + np.exp(b)) for a, b in ((1, 1), (5, 3), (3, 5))]
    assert [share for share, _ in found] == pytest.approx(expected, abs=1e-12)
    assert found[1][1] == ["edema", "not edema"]


@given(logits_of_three)
def test_shares_are_finite_and_in_order_for_any_logits(logits: list[float]) -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        exclusive = [share for share, _ in score(logits, "exclusive")]
        pairs = [share for share, _ in score(logits, "pair")]
    assert sum(exclusive) == pytest.approx(1)  # type: ignore[call-overload]
    for shares in (exclusive, pairs):
        assert all(0 <= share <= 1 for share in shares)  # type: ignore[operator]
        in_order = [share for _, share in sorted(zip(logits, shares, strict=True))]  # type: ignore[type-var]
        assert in_order == sorted(in_order)  # type: ignore[type-var]


@given(logits_of_three)
def test_a_yes_or_no_of_each_has_its_sigmoid_and_no_probability(logits: list[float]) -> None:
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        found = scores_of(np.array(logits, np.float32), KEYS, head("independent", "sigmoid"))
        alone = scores_of(np.array(logits[:1], np.float32), KEYS[:1], head("independent", "sigmoid"))
    for logit, each in zip(logits, found, strict=True):
        assert each.sigmoid is not None
        if abs(logit) < 30:
            assert each.sigmoid == pytest.approx(1 / (1 + np.exp(-logit)), abs=1e-12)
        assert 0 <= each.sigmoid <= 1
        assert (each.softmax, each.among, each.probability, each.flag) == (None, None, None, None)
    assert alone[0] == found[0], "a sigmoid is of one finding"
