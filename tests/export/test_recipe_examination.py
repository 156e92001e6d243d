"""The recipe's rule of an examination: read, checked against the model, carried into the bundle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from promptray import BuildError
from promptray.export.build import build
from promptray.export.recipe import read_recipe
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.manifest import Examination
from tests.convnext_tiny import write_recipe
from tests.examinations import RULE, density_bundle


def refusal(folder: Path, **changes: Any) -> BuildError:
    path = write_recipe(folder, examination={**RULE, **changes})
    with pytest.raises(BuildError) as caught:
        read_recipe(path)
    assert caught.value.code == "recipe.invalid"
    return caught.value


@pytest.mark.parametrize(
    ("changes", "key", "message", "expected"),
    [
        ({"over_sides": "denser"}, "over_sides", "'denser'", "one of mean, max, none"),
        ({"over_views": "median"}, "over_views", "'median'", "one of mean, max"),
        ({"views": []}, "views", "a list of 1 or more entries", None),
        ({"views": "L CC"}, "views", "Expected a list, got text", None),
        ({"require_all": 1}, "require_all", "Expected true or false, got a whole number", None),
        ({"weights": [1]}, "weights", "unknown key `weights`", None),
    ],
)
def test_what_breaks_the_schema(
    changes: dict[str, Any], key: str, message: str, expected: str | None, tmp_path: Path
) -> None:
    error = refusal(tmp_path, **changes)
    text = (tmp_path / "recipe.yaml").read_text().splitlines()
    line = next(n for n, content in enumerate(text, 1) if content.strip().startswith(f"{key}:"))
    assert error.artefact == f"recipe.yaml, line {line}, key examination.{key}"
    assert error.message.endswith(message)
    assert error.expected == expected


@pytest.mark.parametrize("key", ["views", "over_views", "over_sides"])
def test_nothing_of_the_rule_is_guessed(key: str, tmp_path: Path) -> None:
    rule = {name: value for name, value in RULE.items() if name != key}
    with pytest.raises(BuildError) as caught:
        read_recipe(write_recipe(tmp_path, examination=rule))
    assert f"key examination.{key}" in str(caught.value.artefact)


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"examination": {**RULE, "views": ["L CC", "LCC"]}}, "examination.views[1]"),
        ({"examination": {**RULE, "views": ["L CC", "MLO"]}}, "examination.views"),
        ({"relation": "exclusive"}, "examination.over_sides"),
    ],
)
def test_a_rule_that_the_model_cannot_follow_builds_nothing(
    changes: dict[str, Any], key: str, shared_dir: Path, tmp_path: Path
) -> None:
    density_bundle(shared_dir)  # its cache spares the export
    path = write_recipe(tmp_path, **{"examination": RULE, **changes})
    with pytest.raises(BuildError) as caught:
        build(path, tmp_path / "out.bundle", cache=shared_dir / "cache")
    assert caught.value.code == "recipe.invalid"
    assert str(caught.value.artefact).startswith("recipe.yaml, line ")
    assert str(caught.value.artefact).endswith(f"key {key}")
    assert not (tmp_path / "out.bundle").exists()


def test_the_rule_is_in_the_bundle(shared_dir: Path, tmp_path: Path) -> None:
    assert Bundle.open(density_bundle(shared_dir)).manifest.examination == Examination(**RULE)
    assert yaml.safe_load(write_recipe(tmp_path).read_text()).get("examination") is None
    assert read_recipe(tmp_path / "recipe.yaml").examination is None
