"""A recipe is read as it was meant, or refused with file, line and key."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from promptray.export.recipe import Recipe, read_recipe, with_lines
from promptray.runtime.errors import BuildError
from tests.carzero_tiny import PROMPTS

RECIPES = Path(__file__).parents[1] / "data" / "recipes"
EXPECTED: dict[str, dict[str, str]] = json.loads((RECIPES / "expected.json").read_text())


def refusal(path: Path) -> BuildError:
    with pytest.raises(BuildError) as caught:
        read_recipe(path)
    assert caught.value.code == "recipe.invalid"
    assert "docs/recipe.md" in str(caught.value.cure)
    return caught.value


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_broken_recipe_is_refused_with_file_line_and_key(name: str) -> None:
    error = refusal(RECIPES / name)
    place = EXPECTED[name]["place"]
    assert error.artefact == (f"{name}, {place}" if place else name)
    assert error.message == EXPECTED[name]["message"]


def test_every_recipe_of_the_folder_is_expected_to_be_valid_or_not() -> None:
    names = {path.name for path in RECIPES.glob("*.yaml")}
    assert names - set(EXPECTED) == {"valid.yaml", "valid-date-is-text.yaml"}


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("name: example", r'name: "a\ud800"', "key name"),
        ("prompt: There is edema.", r'prompt: "There is \ude00."', "key findings[1].prompt"),
        ("name: example", 'name: example\n"\\ud800": 1', ""),
    ],
)
def test_half_a_character_is_refused(tmp_path: Path, old: str, new: str, place: str) -> None:
    text = (RECIPES / "valid.yaml").read_text()
    assert old in text
    (tmp_path / "recipe.yaml").write_text(text.replace(old, new))
    error = refusal(tmp_path / "recipe.yaml")
    assert "lone surrogate" in error.message
    line = text[: text.index(old)].count("\n") + 1 + new.count("\n")
    assert error.artefact == f"recipe.yaml, line {line}" + (f", {place}" if place else "")
    str(error).encode()


@pytest.mark.parametrize(
    ("text", "key", "message", "expected"),
    [
        ("relation: exclusiv", "relation", "'exclusiv'", "one of independent, exclusive, ordinal, pair"),
        ("templates: a photo of {}", "templates", "Expected a list, got text", None),
        ("templates: []", "templates", "Expected a list of 1 or more entries", None),
        ("text_graph: 1", "text_graph", "Expected true or false, got a whole number", None),
        ("golden: films", "golden", "Expected a mapping, got text", None),
        ("pack: 5", "pack", "Expected text or a list of texts, got a whole number; put it in quotes", None),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_yaml(
    tmp_path: Path, text: str, key: str, message: str, expected: str | None
) -> None:
    (tmp_path / "recipe.yaml").write_text(f"{text}\n{(RECIPES / 'valid.yaml').read_text()}")
    error = refusal(tmp_path / "recipe.yaml")
    assert error.artefact == f"recipe.yaml, line 1, key {key}"
    assert error.message.endswith(message)
    assert error.expected == expected


@pytest.mark.parametrize(
    ("key", "place"),
    [
        ("model.licence", "line 8, key model.licence"),
        ("findings[0].prompt", "line 1, key pack"),
        ("findings[14].prompt", "line 15, key findings[0].prompt"),
        ("findings[15].negative_prompt", "line 16, key findings[1].negative_prompt"),
    ],
)
def test_a_later_refusal_gets_its_line(tmp_path: Path, key: str, place: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(f"pack: chestxray14\n{(RECIPES / 'valid.yaml').read_text()}")
    recipe = read_recipe(path)
    assert [finding.key for finding in recipe.findings[14:]] == ["effusion", "edema"]

    def build() -> None:
        with with_lines(path, recipe):
            path.unlink()  # a build takes minutes, in which the file may change
            raise BuildError("recipe.invalid", "it is so", artefact=f"recipe.yaml, key {key}", found="x")

    with pytest.raises(BuildError) as caught:
        build()
    assert caught.value.artefact == f"recipe.yaml, {place}"
    assert (caught.value.message, caught.value.found) == ("it is so", "x")


def test_a_refusal_of_another_file_stays_as_it_is() -> None:
    path = RECIPES / "valid.yaml"
    error = BuildError("checkpoint.layout", "it is so", artefact="weights.bin")
    with pytest.raises(BuildError) as caught, with_lines(path, read_recipe(path)):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("key", [r'"rib\u200bfracture"', r'"e\u0301panchement"', r'"rib\x85fracture"'])
def test_a_key_that_looks_like_another_is_refused(tmp_path: Path, key: str) -> None:
    text = (RECIPES / "valid.yaml").read_text()
    (tmp_path / "recipe.yaml").write_text(text.replace("key: edema", f"key: {key}"))
    error = refusal(tmp_path / "recipe.yaml")
    assert str(error.artefact).endswith("key findings[1].key")
    assert "this cannot be a key" in error.message


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "recipe.yaml")
    assert "no ordinary file" in refusal(tmp_path / "recipe.yaml").message


def test_a_valid_recipe_is_read() -> None:
    recipe = read_recipe(RECIPES / "valid.yaml")
    assert (recipe.name, recipe.family, recipe.checkpoint) == (
        "example",
        "carzero",
        "CARZero_best_model.ckpt",
    )
    assert [(finding.key, finding.prompt) for finding in recipe.findings] == [
        ("effusion", "There is pleural effusion."),
        ("edema", "There is edema."),
    ]
    assert recipe.text_graph is True
    assert recipe.golden is None
    assert read_recipe(RECIPES / "valid-date-is-text.yaml").name == "2026-13-45"


def test_prompts_survive_with_their_line_feeds(carzero_recipe: Callable[..., Path]) -> None:
    recipe = read_recipe(carzero_recipe())
    assert {finding.key: finding.prompt for finding in recipe.findings} == PROMPTS


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    content = (RECIPES / "valid.yaml").read_bytes().replace(b"\n", b"\r\n")
    (tmp_path / "recipe.yaml").write_bytes(b"\xef\xbb\xbf" + content)
    assert read_recipe(tmp_path / "recipe.yaml") == read_recipe(RECIPES / "valid.yaml")


def test_a_missing_file_a_folder_and_a_huge_file_are_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "absent.yaml").message
    assert "cannot be read" in refusal(tmp_path).message
    (tmp_path / "huge.yaml").write_bytes(b"# " + b"x" * (1 << 20))
    assert "too large" in refusal(tmp_path / "huge.yaml").message


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, "- " * 5000, "? " * 5000, "a: [" * 5000])
def test_deep_nesting_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "deep.yaml").write_text(text)
    assert "nested too deep" in refusal(tmp_path / "deep.yaml").message


def recipe_or_refused(path: Path, content: bytes) -> Recipe | str:
    path.write_bytes(content)
    try:
        return read_recipe(path)
    except BuildError as error:
        return error.code


def contents() -> st.SearchStrategy[bytes]:
    """Bytes, text, and text made of what YAML gives a meaning."""
    marks = "- [ ] { } , : ? ! !! & * | > % @ ` ' \" # ~ << --- ... \n \t !!int !!set".split(" ")
    words = [*marks, "a", "b", "key:", "1", "1.5", ".nan", "yes", "0x1f", "1:30"]
    yaml = st.lists(st.sampled_from(words), max_size=40).map(" ".join)
    return st.one_of(st.binary(max_size=200), st.one_of(st.text(max_size=200), yaml).map(str.encode))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=contents())
@example(content=b"!!int abc")
@example(content=b"a: !!int abc")
@example(content=b"a: " + b"9" * 5000)
@example(content=b"a: 2026-01-31T25:61:00Z")
@example(content=b"a: !!float x")
@example(content=b"{a: !!int}")
@example(content=b"=: =")
def test_any_bytes_are_a_recipe_or_refused(tmp_path: Path, content: bytes) -> None:
    assert recipe_or_refused(tmp_path / "recipe.yaml", content) == "recipe.invalid"


def test_a_mutated_recipe_is_a_recipe_or_refused(tmp_path: Path) -> None:
    content = (RECIPES / "valid.yaml").read_bytes()
    chance = random.Random(0)
    refused = 0
    for _ in range(300):
        changed = bytearray(content)
        for _ in range(3):
            changed[chance.randrange(len(changed))] = chance.choice(b"-:?[]{}#&*!|>'\"%@` \n\tx0~\x00\xff")
        outcome = recipe_or_refused(tmp_path / "recipe.yaml", bytes(changed))
        assert isinstance(outcome, Recipe) or outcome == "recipe.invalid"
        refused += not isinstance(outcome, Recipe)
    assert refused > 100
