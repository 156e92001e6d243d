from __future__ import annotations

from typing import Any

import pytest

from promptray.calibrate.distil.settings import read_settings
from promptray.runtime.errors import BuildError

BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "student"),
    ({"student": "test_vit", "epoch": 3}, "epoch"),
    ({"student": "test_vit", "rate": float("nan")}, "rate"),
    ({"student": "test_vit", "rate": float("inf")}, "rate"),
    ({"student": "test_vit", "rate": 0}, "rate"),
    ({"student": "test_vit", "batch": 1}, "batch"),
    ({"student": "test_vit", "validation": 1}, "validation"),
    ({"student": "test_vit", "losses": {"feature": -1}}, "feature"),
    ({"student": "test_vit", "losses": {"feature": 0, "similarity": 0, "logit": 0}}, "every loss"),
    ({"student": "test_vit", "augment": {"views": 0}}, "views"),
    ({"student": "test_vit", "augment": {"flip": True}}, "flip"),
    ({"student": "test_vit", "precision": "bf16"}, "device cuda"),
    ({"student": "test_vit", "layers": 3}, "student: teacher"),
    ({"student": "teacher"}, "number of blocks"),
    ({"student": "teacher", "layers": 0}, "layers"),
    ({"student": "teacher", "layers": "some"}, "layers"),
    ({"student": "teacher", "layers": 2, "weights": "own.safetensors"}, "the teacher's weights"),
]


@pytest.mark.parametrize(("content", "said"), BAD)
def test_a_setting_that_cannot_be_is_refused_by_name(content: dict[str, Any], said: str) -> None:
    with pytest.raises(BuildError) as refused:
        read_settings(content)
    assert refused.value.code == "distil.settings"
    assert said in str(refused.value)


def test_what_is_left_out_has_a_default() -> None:
    found = read_settings({"student": "test_vit", "losses": {"logit": 2}})
    assert (found.losses.feature, found.losses.logit, found.losses.report) == (1, 2, 0)
    assert found.steps is None
    assert found.name == "test_vit"
    assert read_settings({"student": "teacher", "layers": "all"}).name == "own tower with all layers"
