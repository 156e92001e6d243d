"""From a recipe's findings to the bundle's: templates, lists of wordings, relations that families score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from promptray.export.draft import plan
from promptray.export.families.carzero import FAMILY as CARZERO
from promptray.export.families.open_clip import FAMILY as OPEN_CLIP
from promptray.export.findings import text_rule_of
from promptray.export.model_facts import ModelFile, describe
from promptray.export.recipe import Recipe
from promptray.runtime.errors import BuildError
from tests import carzero_tiny, open_clip_tiny
from tests.planned import planned

PAIR = {"key": "edema", "prompt": "edema", "negative_prompt": "no edema"}


@pytest.fixture(scope="module")
def open_clip() -> ModelFile:
    return describe(OPEN_CLIP.load(open_clip_tiny.FOLDER / open_clip_tiny.WEIGHTS, None, {}))


@pytest.fixture(scope="module")
def carzero() -> ModelFile:
    folder = carzero_tiny.FOLDER
    return describe(CARZERO.load(folder / "CARZero_best_model.ckpt", folder / "text_model", {}))


def recipe(*findings: dict[str, Any], **changes: Any) -> Recipe:
    content = open_clip_tiny.recipe(findings=list(findings), relation="independent")
    made: Recipe = msgspec.convert({**content, **changes}, Recipe)
    return made


def prompts(facts: ModelFile, finding: dict[str, Any], **changes: Any) -> tuple[list[str], list[str]]:
    found = planned(recipe(finding, **changes), facts)[1][0]
    return found.prompts, found.negative_prompts


def test_prompts_stand_as_they_are_without_templates(open_clip: ModelFile) -> None:
    assert prompts(open_clip, {"key": "edema", "prompt": "There is edema."}) == (["There is edema."], [])
    assert prompts(open_clip, {"key": "edema", "prompt": ["a", "b"]}) == (["a", "b"], [])


def test_a_bare_key_fills_the_familys_template(open_clip: ModelFile, carzero: ModelFile) -> None:
    assert prompts(open_clip, {"key": "edema"}) == (["this is a photo of edema"], [])
    assert prompts(carzero, {"key": "edema"}) == ([carzero.text.templates[0].format("edema")], [])


def test_each_prompt_fills_each_template(open_clip: ModelFile) -> None:
    templates = ["a photo of {}", "{} presented in image"]
    filled = ["a photo of edema", "edema presented in image"]
    assert prompts(open_clip, {"key": "edema"}, templates=templates) == (filled, [])
    assert prompts(open_clip, {"key": "x", "prompt": "edema"}, templates=templates) == (filled, [])
    assert prompts(open_clip, {"key": "x", "prompt": ["edema", "fluid"]}, templates=templates) == (
        [*filled, "a photo of fluid", "fluid presented in image"],
        [],
    )
    assert text_rule_of(recipe({"key": "x"}, templates=templates), open_clip, "r").templates == templates


def test_negatives_fill_the_templates_too(open_clip: ModelFile) -> None:
    own, negative = prompts(open_clip, PAIR, relation="pair", templates=["a photo of {}"])
    assert (own, negative) == (["a photo of edema"], ["a photo of no edema"])
    bare = {"key": "edema", "negative_prompt": ["normal", "no edema"]}
    assert prompts(open_clip, bare, relation="pair") == (
        ["this is a photo of edema"],
        ["normal", "no edema"],
    )


def test_names_and_codes_are_kept(open_clip: ModelFile) -> None:
    code = {"value": "233604007", "scheme": "SCT", "meaning": "Pneumonia"}
    _, found = planned(
        recipe({"key": "a", "prompt": "x", "display": "A", "code": code}, {"key": "b"}), open_clip
    )
    assert [(each.key, each.display, each.head) for each in found] == [
        ("a", "A", "findings"),
        ("b", "b", "findings"),
    ]
    assert msgspec.to_builtins(found[0].code) == code


def test_the_head_says_how_findings_hang_together(open_clip: ModelFile) -> None:
    two = ({"key": "a"}, {"key": "b"})
    for relation, activation in (("independent", "none"), ("exclusive", "softmax"), ("pair", "softmax")):
        if relation == "pair":
            two = tuple({**each, "negative_prompt": "none"} for each in two)
        settings, _ = planned(recipe(*two, relation=relation), open_clip)
        assert (settings.relation, settings.activation) == (relation, activation)


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "CARZero: alternatives": ("carzero", {"relation": "exclusive"}, "relation"),
    "CARZero: pairs": ("carzero", {"relation": "pair", "findings": [PAIR]}, "relation"),
    "CARZero: an ensemble": (
        "carzero", {"findings": [{"key": "a", "prompt": ["There is a.", "A b c."]}]}, "findings[0].prompt",
    ),
    "CARZero: a negative": ("carzero", {"findings": [{"key": "x"}, PAIR]}, "findings[1].negative_prompt"),
    "CARZero: two templates": ("carzero", {"templates": ["There is {}.", "{} is there."]}, "templates"),
    "one alternative": ("open_clip", {"relation": "exclusive", "findings": [{"key": "a"}]}, "findings"),
    "a pair without negative": ("open_clip", {"relation": "pair"}, "findings[0].negative_prompt"),
    "a negative without pairs": (
        "open_clip", {"findings": [{"key": "x"}, PAIR]}, "findings[1].negative_prompt",
    ),
    "a pair of the same": (
        "open_clip",
        {"relation": "pair", "findings": [{"key": "a", "prompt": "a", "negative_prompt": ["a"]}]},
        "findings[0].negative_prompt",
    ),
    "a template without a place": ("open_clip", {"templates": ["{}", "a photo"]}, "templates[1]"),
    "a template with two places": ("open_clip", {"templates": ["{} {}"]}, "templates[0]"),
    "a template with a name": ("open_clip", {"templates": ["{name}"]}, "templates[0]"),
    "a template with another brace": ("open_clip", {"templates": ["{} }"]}, "templates[0]"),
    "a sigmoid model's pairs": ("sigmoid", {"relation": "pair", "findings": [PAIR]}, "relation"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_family_cannot_score_is_refused_by_key(
    open_clip: ModelFile, carzero: ModelFile, case: str
) -> None:
    name, changes, key = REFUSED[case]
    no_pairs = msgspec.structs.replace(open_clip.heads[0], relations=["independent", "exclusive"])
    sigmoid = msgspec.structs.replace(open_clip, heads=[no_pairs])
    facts = {"open_clip": open_clip, "carzero": carzero, "sigmoid": sigmoid}[name]
    stated = recipe({"key": "a", "prompt": "There is a."}, {"key": "b"}, **changes)
    with pytest.raises(BuildError) as refusal:
        plan(stated, "recipe.yaml", facts, Path("tokenizer.json"))
    assert refusal.value.code == "recipe.invalid"
    assert refusal.value.artefact == f"recipe.yaml, key {key}"
    assert refusal.value.cure == "docs/recipe.md lists every key with an example"
