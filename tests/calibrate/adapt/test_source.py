from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
import yaml

from promptray.calibrate.adapt.source import groups_of, read_source
from promptray.export.recipe import read_recipe
from promptray.runtime.errors import BuildError
from tests.calibrate.adapt.made_site import CLASSES, convnext_recipe, zero_shot_recipe


def test_a_pack_names_its_classes_as_its_data_set_does(tmp_path: Path) -> None:
    source = read_source(zero_shot_recipe(tmp_path, pack="birads-density", findings=None))
    names = source.names({"0": "density D"})
    assert names["A"] == names["density A"] == names["Almost entirely fatty"] == "density A"
    assert names["0"] == names["D"] == "density D"
    assert source.ordinal


def test_a_name_of_two_classes_names_none(tmp_path: Path) -> None:
    findings = [
        {"key": "a", "display": "same"},
        {"key": "b", "display": "same"},
        {"key": "c", "display": "a"},
    ]
    source = read_source(convnext_recipe(tmp_path, findings=findings, groups=None))
    names = source.names({})
    assert "same" not in names
    assert names["a"] == "a"  # a key is stronger than another's display


def test_the_recipe_of_what_is_tuned_keeps_all_that_is_no_text(tmp_path: Path) -> None:
    findings = [
        {"key": key, "prompt": [key], "display": key.title(), "allow_empty": True,
         "code": {"value": "1", "scheme": "SCT", "meaning": key}}
        for key in CLASSES
    ]  # fmt: skip
    changes = {
        "findings": findings,
        "groups": {"not dark": ["grey", "bright"]},
        "templates": ["a {}"],
        "text_graph": False,
        "name": "x" * 100,
    }
    source = read_source(zero_shot_recipe(tmp_path, **changes))
    options = {"image_heads": 4}
    made = source.tuned_recipe("fine-tune", "tuned.safetensors", "open_clip", options, "../golden", "More")
    path = tmp_path / "tuned.yaml"
    path.write_text(yaml.safe_dump(made), encoding="utf-8")
    recipe, before = read_recipe(path), source.recipe
    assert recipe.door == before.door
    assert recipe.groups == before.groups
    assert recipe.relation == "ordinal"
    assert recipe.name == "x" * 80 + "-fine-tune"
    assert recipe.model_options == {"image_heads": 4}
    assert recipe.model.training_data == f"{before.model.training_data}. More"
    assert recipe.golden == msgspec.structs.replace(before.golden, images="../golden")
    for own, was in zip(recipe.findings, before.findings, strict=True):
        assert (own.key, own.display, own.code, own.class_name) == (was.key, was.display, was.code, was.key)
        assert own.prompt is None
        assert not own.allow_empty
    assert recipe.templates is None
    assert recipe.text_graph


def test_classes_of_two_heads_are_refused(tmp_path: Path) -> None:
    findings = [{"key": "a"}, {"key": "b"}, {"key": "c", "head": "other"}]
    for changes in ({"findings": findings}, {"heads": {"other": {"relation": "exclusive"}}}):
        with pytest.raises(BuildError) as refused:
            read_source(convnext_recipe(tmp_path, groups=None, **changes))
        assert (refused.value.code, refused.value.found) == ("adapt.recipe", "other")


def test_a_group_of_all_classes_is_not_measured(tmp_path: Path) -> None:
    groups = {"all": list(CLASSES), "dark or grey": ["dark", "grey"]}
    assert list(groups_of(read_source(convnext_recipe(tmp_path, groups=groups)))) == ["dark or grey"]
