"""Pooling over images, views and sides: laws that hold for every score, and small sums done by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptray.runtime.bundle.manifest import Examination, Head
from promptray.runtime.exam_pool import expected_rank, pool
from promptray.runtime.views import View
from tests.bundle_factory import made_head

L_CC, L_MLO, R_CC, R_MLO = VIEWS = (View("L", "CC"), View("L", "MLO"), View("R", "CC"), View("R", "MLO"))
KEYS = "ABCD"


def rule(over_views: str = "mean", over_sides: str = "mean") -> Examination:
    return Examination(
        views=[view.label for view in VIEWS],
        over_views=over_views,  # type: ignore[arg-type]
        over_sides=over_sides,  # type: ignore[arg-type]
    )


def head(relation: str = "ordinal") -> Head:
    activation = "none" if relation == "independent" else "softmax"
    return made_head(name="head", relation=relation, activation=activation)


@st.composite
def shares(draw: st.DrawFn) -> dict[str, float]:
    weights = draw(st.lists(st.floats(0.001, 1.0), min_size=len(KEYS), max_size=len(KEYS)))
    return {key: weight / sum(weights) for key, weight in zip(KEYS, weights, strict=True)}


images = st.dictionaries(st.sampled_from(VIEWS), st.lists(shares(), min_size=1, max_size=3), min_size=1)
logits = st.fixed_dictionaries({key: st.floats(-50, 50) for key in KEYS})
how = st.sampled_from(("mean", "max"))


def ordered(given_views: dict[View, Sequence[dict[str, float]]]) -> dict[View, Sequence[dict[str, float]]]:
    return {view: given_views[view] for view in VIEWS if view in given_views}


@given(images, how, how)
def test_pooled_shares_of_a_scale_are_shares(
    scores: dict[View, Sequence[dict[str, float]]], over_views: str, over_sides: str
) -> None:
    sides, whole = pool(ordered(scores), rule(over_views, over_sides), head())
    assert whole
    for part in (*sides.values(), whole):
        assert list(part.values) == list(KEYS)
        assert math.fsum(part.values.values()) == pytest.approx(1.0, abs=1e-12)
        assert all(0 <= value <= 1 for value in part.values.values())


@given(images, how, how)
def test_no_pooled_value_leaves_the_range_of_the_images(
    scores: dict[View, Sequence[dict[str, float]]], over_views: str, over_sides: str
) -> None:
    every = [image for several in scores.values() for image in several]
    for relation in ("ordinal", "independent"):
        sides, whole = pool(ordered(scores), rule(over_views, over_sides), head(relation))
        assert whole
        for part in (*sides.values(), whole):
            for key, value in part.values.items():
                found = [image[key] for image in every]
                assert min(found) - 1e-12 <= value <= max(found) + 1e-12


@given(st.sampled_from(VIEWS), logits, how, how, st.sampled_from(("ordinal", "independent", "pair")))
def test_of_one_image_the_pooled_values_are_its_own_to_the_bit(
    view: View, image: dict[str, float], over_views: str, over_sides: str, relation: str
) -> None:
    sides, whole = pool({view: [image]}, rule(over_views, over_sides), head(relation))
    assert whole
    assert whole.values == sides[str(view.side)].values == image
    assert set(whole.views.values()) == {(view,)}


@given(images, how, how)
def test_the_order_of_a_views_images_does_not_matter_to_the_bit(
    scores: dict[View, list[dict[str, float]]], over_views: str, over_sides: str
) -> None:
    turned = {view: several[::-1] for view, several in scores.items()}
    for relation in ("ordinal", "independent"):
        first = pool(ordered(scores), rule(over_views, over_sides), head(relation))
        assert first == pool(ordered(turned), rule(over_views, over_sides), head(relation))


@given(images)
def test_the_whole_of_the_greatest_rank_is_the_denser_side(
    scores: dict[View, Sequence[dict[str, float]]],
) -> None:
    sides, whole = pool(ordered(scores), rule("mean", "max"), head())
    assert whole
    assert whole in sides.values()
    assert expected_rank(whole.values) == max(expected_rank(part.values) for part in sides.values())


def test_a_side_of_one_view_weighs_as_much_as_one_of_two() -> None:
    scores = {L_CC: [{"x": 1.0}], L_MLO: [{"x": 3.0}], R_CC: [{"x": 10.0}]}
    sides, whole = pool(scores, rule(), head("independent"))
    assert whole
    assert (sides["L"].values["x"], sides["R"].values["x"], whole.values["x"]) == (2.0, 10.0, 6.0)
    assert whole.views["x"] == (L_CC, L_MLO, R_CC)


def test_a_view_of_two_images_weighs_as_much_as_one_of_one() -> None:
    scores = {L_CC: [{"x": 0.0}, {"x": 4.0}], L_MLO: [{"x": 8.0}]}
    sides, _ = pool(scores, rule(), head("independent"))
    assert sides["L"].values["x"] == 5.0
    assert pool(scores, rule("max"), head("independent"))[0]["L"].values["x"] == 8.0
    assert pool({L_CC: scores[L_CC]}, rule("max"), head("independent"))[0]["L"].values["x"] == 2.0


def test_the_greatest_of_independent_findings_is_taken_one_by_one() -> None:
    scores = {L_CC: [{"x": 1.0, "y": 0.0}], R_MLO: [{"x": 0.0, "y": 2.0}]}
    _, whole = pool(scores, rule("max", "max"), head("independent"))
    assert whole
    assert whole.values == {"x": 1.0, "y": 2.0}
    assert whole.views == {"x": (L_CC,), "y": (R_MLO,)}


def test_of_equal_ranks_the_first_view_of_the_rule_is_taken() -> None:
    narrow, wide = {"A": 0.0, "B": 1.0, "C": 0.0}, {"A": 0.5, "B": 0.0, "C": 0.5}
    _, whole = pool({L_CC: [narrow], R_CC: [wide]}, rule("mean", "max"), head())
    assert whole
    assert whole.values == narrow


def test_sides_may_stay_apart() -> None:
    sides, whole = pool(
        {L_CC: [{"x": 1.0}], R_CC: [{"x": 2.0}]}, rule(over_sides="none"), head("independent")
    )
    assert whole is None
    assert {side: part.values["x"] for side, part in sides.items()} == {"L": 1.0, "R": 2.0}


def test_views_without_side_make_the_examination_at_once() -> None:
    chest = Examination(views=["PA", "LL"], over_views="max", over_sides="none")
    scores = {View(None, "PA"): [{"x": 1.0}], View(None, "LL"): [{"x": 2.0}]}
    sides, whole = pool(scores, chest, head("independent"))
    assert whole
    assert (sides, whole.values, whole.views["x"]) == ({}, {"x": 2.0}, (View(None, "LL"),))
