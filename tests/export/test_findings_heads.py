"""Recipes of a model with two heads: whose findings are whose, and what is said of each head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from promptray.export.families.asg import FAMILY
from promptray.export.findings import by_head
from promptray.export.model_facts import ModelFile, describe
from promptray.export.recipe import Recipe, read_recipe
from promptray.runtime.errors import BuildError
from promptray.runtime.packs import read_pack
from tests import asg_tiny
from tests.asg_tiny import CHECKPOINT, TAGS, TEXT_MODEL
from tests.planned import planned

ONE = {"key": "edema", "prompt": "mild edema"}


@pytest.fixture(scope="module")
def both() -> ModelFile:
    return describe(FAMILY.load(CHECKPOINT, TEXT_MODEL, {}))


def with_head(facts: ModelFile, number: int, **changes: Any) -> ModelFile:
    heads = list(facts.heads)
    heads[number] = msgspec.structs.replace(heads[number], **changes)
    return msgspec.structs.replace(facts, heads=heads)


def recipe(*findings: dict[str, Any], **changes: Any) -> Recipe:
    made: Recipe = msgspec.convert(asg_tiny.recipe(findings=list(findings), **changes), Recipe)
    return made


def test_a_finding_is_of_the_first_head_unless_it_says_otherwise(both: ModelFile) -> None:
    named = [{"key": tag, "head": "tags"} for tag in TAGS]
    found = by_head(recipe(ONE, {**ONE, "key": "b", "head": "prompts"}, *named), both, "recipe.yaml")
    assert [each.finding.key for each in found["prompts"]] == ["edema", "b"]
    assert [each.finding.key for each in found["tags"]] == TAGS  # one of whose keys prompts have, too
    assert found["prompts"][1].place == "recipe.yaml, key findings[1]"


def test_a_pack_that_is_a_scale_stands_alone_in_its_head(both: ModelFile, tmp_path: Path) -> None:
    """Findings of another head are no steps of it, and one of the same head is, however it says so."""
    ordinal = with_head(both, 0, relations=["ordinal"])
    path = tmp_path / "recipe.yaml"

    def found(*findings: dict[str, Any]) -> dict[str, list[str]]:
        asked = asg_tiny.recipe(findings=list(findings), pack="birads-density", relation="ordinal")
        path.write_text(yaml.safe_dump(asked), encoding="utf-8")
        stated = by_head(read_recipe(path), ordinal, "recipe.yaml")
        return {head: [each.finding.key for each in those] for head, those in stated.items()}

    scale = [each.key for each in read_pack("birads-density").findings]
    assert found() == {"prompts": scale, "tags": TAGS}
    assert found(*({"key": tag, "head": "tags"} for tag in TAGS)) == {"prompts": scale, "tags": TAGS}
    for longer in (ONE, {**ONE, "head": "prompts"}):
        with pytest.raises(BuildError, match="the pack is a scale") as refused:
            found(longer)
        assert refused.value.artefact == "recipe.yaml, key pack"
        assert refused.value.found == "edema"


def test_classes_that_are_not_listed_come_all(both: ModelFile) -> None:
    _, made = planned(recipe(ONE), both, head=1)
    assert [(each.head, each.key, each.prompts) for each in made] == [("tags", tag, []) for tag in TAGS]


def test_a_class_of_another_head_may_have_another_key(both: ModelFile) -> None:
    named = [{"key": f"tag {tag}", "class_name": tag, "head": "tags"} for tag in reversed(TAGS)]
    _, made = planned(recipe(ONE, *named), both, head=1)
    assert [each.key for each in made] == [f"tag {tag}" for tag in reversed(TAGS)]


def test_relation_and_groups_of_each_head(both: ModelFile) -> None:
    alternatives = with_head(both, 1, relations=["exclusive", "independent"])
    asked = recipe(
        ONE, {"key": "normal"}, relation="exclusive", groups={"any": ["edema"]},
        heads={"tags": {"relation": "exclusive", "groups": {"metal": ["stent", "wire"]}}},
    )  # fmt: skip
    first, _ = planned(asked, alternatives)
    second, _ = planned(asked, alternatives, head=1)
    assert (first.relation, first.activation, first.groups) == ("exclusive", "softmax", {"any": ["edema"]})
    assert (second.relation, second.groups) == ("exclusive", {"metal": ["stent", "wire"]})
    plain, _ = planned(recipe(ONE), both, head=1)
    assert (plain.relation, plain.activation, plain.groups) == ("independent", "sigmoid", {})


REFUSED: dict[str, tuple[list[dict[str, Any]], dict[str, Any], str]] = {
    "an unknown head": ([{**ONE, "head": "regions"}], {}, "findings[0].head"),
    "a key twice, once with its head": ([ONE, {**ONE, "head": "prompts"}], {}, "findings[1].key"),
    "a part of the tags": ([ONE, {"key": "stent", "head": "tags"}], {}, "findings"),
    "a prompt for a tag": (
        [ONE, *({"key": tag, "head": "tags", "prompt": tag} for tag in TAGS)], {}, "findings[1].prompt",
    ),
    "nothing for the prompts": ([{"key": tag, "head": "tags"} for tag in TAGS], {}, "findings"),
    "what is said of an unknown head": ([ONE], {"heads": {"regions": {}}}, "heads.regions"),
    "what is said of the first head": ([ONE], {"heads": {"prompts": {}}}, "heads.prompts"),
    "a relation that tags have not": (
        [ONE], {"heads": {"tags": {"relation": "exclusive"}}}, "heads.tags.relation",
    ),
    "groups of tags that are no alternatives": (
        [ONE], {"heads": {"tags": {"groups": {"metal": ["stent"]}}}}, "heads.tags.groups.metal",
    ),
}  # fmt: skip


def _both_planned(asked: Recipe, facts: ModelFile) -> None:
    for head in (0, 1):
        planned(asked, facts, head=head)


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_by_key(both: ModelFile, case: str) -> None:
    findings, changes, key = REFUSED[case]
    with pytest.raises(BuildError) as refused:
        _both_planned(recipe(*findings, **changes), both)
    assert (refused.value.code, refused.value.artefact) == ("recipe.invalid", f"recipe.yaml, key {key}")


@pytest.mark.parametrize("name", ["a/b", " a", "e\u0301", "x" * 129])
def test_a_class_that_cannot_be_a_key_must_be_listed(both: ModelFile, name: str) -> None:
    odd = with_head(both, 1, classes=[name, *TAGS[1:]])
    with pytest.raises(BuildError, match="cannot be a key as it is called") as refused:
        planned(recipe(ONE), odd, head=1)
    assert refused.value.found == ascii(name)


def test_a_recipe_may_leave_findings_out_but_not_empty(tmp_path: Path) -> None:
    changes = {"findings": None, "model_options": {"heads": ["tags"]}}
    asked = read_recipe(asg_tiny.write_recipe(tmp_path, **changes))
    tags_alone = describe(FAMILY.load(CHECKPOINT, TEXT_MODEL, asked.model_options))
    _, made = planned(asked, tags_alone)
    assert [each.key for each in made] == TAGS
    with pytest.raises(BuildError, match="1 or more entries"):
        read_recipe(asg_tiny.write_recipe(tmp_path, **{**changes, "findings": []}))


def test_a_key_may_stand_once_in_each_head(tmp_path: Path) -> None:
    both_have = {"findings": [ONE, {"key": "edema", "head": "tags"}]}
    assert len(read_recipe(asg_tiny.write_recipe(tmp_path, **both_have)).findings) == 2
    with pytest.raises(BuildError, match="two findings have the same key"):
        read_recipe(asg_tiny.write_recipe(tmp_path, findings=[ONE, {**ONE}]))
