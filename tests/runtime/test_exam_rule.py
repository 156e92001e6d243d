"""A rule that means one thing, in words; every rule that does not is named."""

from __future__ import annotations

from typing import Any

import pytest

from promptray.runtime.bundle.manifest import Examination, Head
from promptray.runtime.exam_rule import in_words, pooled_of, rule_fault
from promptray.runtime.views import parse_view
from tests.bundle_factory import made_head
from tests.examinations import RULE


def rule(**changes: Any) -> Examination:
    return Examination(**{**RULE, **changes})


def head(relation: str = "ordinal", activation: str = "softmax", name: str = "density") -> Head:
    return made_head(name=name, relation=relation, activation=activation)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"over_views": "max"},
        {"over_sides": "none"},
        {"views": ["R CC"]},
        {"views": ["PA", "LL"], "over_sides": "none"},
    ],
)
def test_sound_rules(changes: dict[str, Any]) -> None:
    assert rule_fault(rule(**changes), [head()]) is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"views": ["L CC", "l MLO"]}, "views[1]"),
        ({"views": ["L-CC"]}, "views[0]"),
        ({"views": ["L XX"]}, "views[0]"),
        ({"views": [""]}, "views[0]"),
        ({"views": ["L CC", "L CC"]}, "views"),
        ({"views": ["L CC", "MLO"]}, "views"),
        ({"views": ["PA", "LL"]}, "over_sides"),
    ],
)
def test_faults(changes: dict[str, Any], field: str) -> None:
    fault = rule_fault(rule(**changes), [head()])
    assert fault is not None
    assert fault.field == field


@pytest.mark.parametrize(
    ("field", "changes"),
    [("over_views", {"over_views": "max", "over_sides": "mean"}), ("over_sides", {})],
)
def test_alternatives_without_order_have_no_greatest(field: str, changes: dict[str, Any]) -> None:
    fault = rule_fault(rule(**changes), [head(), head("exclusive")])
    assert fault is not None
    assert fault.field == field
    assert rule_fault(rule(over_sides="mean"), [head("exclusive")]) is None


def test_a_rule_in_words() -> None:
    assert in_words(rule(), [head()]) == [
        "Views: L CC, L MLO, R CC, R MLO. Missing ones are reported.",
        "Images of one view: their mean.",
        "Views of one side: mean softmax of each finding.",
        "Sides: the one of the greatest expected rank.",
    ]
    chest = rule(views=["PA", "LL"], over_views="max", over_sides="none", require_all=True)
    assert in_words(chest, [head("independent", "sigmoid")]) == [
        "Views: PA, LL. All are needed.",
        "Images of one view: their mean.",
        "Views: greatest sigmoid of each finding.",
    ]
    several = in_words(rule(over_sides="none"), [head(), head("independent", "none", name="tags")])
    assert several[2:] == [
        "Views of one side (density): mean softmax of each finding.",
        "Sides (density): kept apart.",
        "Views of one side (tags): mean logit of each finding.",
        "Sides (tags): kept apart.",
    ]


def test_what_is_pooled() -> None:
    relations = ("exclusive", "ordinal", "pair")
    assert {pooled_of(head(relation)) for relation in relations} == {"softmax"}
    assert pooled_of(head("independent", "sigmoid")) == "sigmoid"
    assert pooled_of(head("independent", "none")) == "logit"


@pytest.mark.parametrize(
    ("label", "found"),
    [
        ("L CC", "L CC"), ("r-mlo", "R MLO"), (" L  CC ", "L CC"), ("PA", "PA"), ("ll", "LL"),
        ("LCC", None), ("L", None), ("CC L", None), ("L L CC", None), ("", None), ("B CC", None),
    ],
)  # fmt: skip
def test_labels(label: str, found: str | None) -> None:
    view = parse_view(label)
    assert (view and view.label) == found
