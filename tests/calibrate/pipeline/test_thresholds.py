"""Thresholds of a recipe's section `gate`: of findings the model has, one head at a time."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from promptray import BuildError
from promptray.calibrate.pipeline.recipe import GateRecipe
from promptray.calibrate.pipeline.thresholds import thresholds_of

KEYS = {"prompts": ["edema", "rib fracture", "both"], "tags": ["mass", "both"]}


MANIFEST: Any = SimpleNamespace(
    heads=[SimpleNamespace(name=name) for name in KEYS],
    findings_of=lambda head: [SimpleNamespace(key=key) for key in KEYS[head]],
)


def found(thresholds: dict[str, Any]) -> dict[str, dict[str, float]]:
    stated = {"images": "x", "source": "x", "thresholds": thresholds}
    return thresholds_of(msgspec.convert(stated, GateRecipe), MANIFEST, "recipe.yaml")


def test_findings_are_found_in_their_heads() -> None:
    assert found({"edema": 0.5, "mass": -1}) == {"prompts": {"edema": 0.5}, "tags": {"mass": -1.0}}
    assert found({"tags": {"both": 2.5}, "prompts": {"both": 1.5}}) == {
        "tags": {"both": 2.5},
        "prompts": {"both": 1.5},
    }
    assert found({}) == {}


WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "a finding of no head": ({"rib fractur": 1.0}, "no such finding", "gate.thresholds.rib fractur"),
    "of another head": ({"tags": {"edema": 1.0}}, "no such finding", "gate.thresholds.tags.edema"),
    "no head": ({"images": {"edema": 1.0}}, "no such head", "gate.thresholds.images"),
    "of two heads": ({"both": 1.0}, "several heads", "gate.thresholds.both"),
    "infinite": ({"edema": math.inf}, "not finite", "gate.thresholds.edema"),
}


@pytest.mark.parametrize(("thresholds", "words", "key"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_the_model_is_refused(thresholds: dict[str, Any], words: str, key: str) -> None:
    with pytest.raises(BuildError, match=words) as refusal:
        found(thresholds)
    assert refusal.value.code == "recipe.invalid"
    assert key in str(refusal.value.artefact)


def test_the_nearest_findings_are_named() -> None:
    with pytest.raises(BuildError) as refusal:
        found({"rib fractur": 1.0})
    assert refusal.value.expected == "rib fracture"
