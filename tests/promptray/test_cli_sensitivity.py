"""``promptray sensitivity``: the ranking as a table, JSON, page and plot; refusals with their codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import pytest

from tests.calibrate.pipeline import squeezed
from tests.promptray.command_line import Call

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "sensitivity.schema.json").read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, and a cache that the first command fills."""
    folder = tmp_path_factory.mktemp("ranked")
    squeezed.write_pictures(folder)
    return folder


def recipe(place: Path, **changes: Any) -> Path:
    return squeezed.write_recipe(place, gate=None, **changes)


def test_groups_are_ranked_without_a_gate(place: Path, call: Call, tmp_path: Path) -> None:
    answer = call("sensitivity", recipe(place), "--cache", place / "cache", "-o", tmp_path / "out", "--json")
    assert answer.code == 0
    (document,) = answer.documents
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert document == json.loads((tmp_path / "out" / "sensitivity.json").read_text())
    ranked = document["sensitivity"]["groups"]
    assert [each["spread"] for each in ranked] == sorted((each["spread"] for each in ranked), reverse=True)
    assert all(each["group"].startswith("image: ") and each["products"] > 0 for each in ranked)
    assert document["findings"] == ["bacterial", "normal", "viral"]
    assert document["images"] == {
        "images": squeezed.CALIBRATED, "source": "blocks, seed 1", "refused": {},
        "sha256": document["images"]["sha256"],
    }  # fmt: skip
    plot = ElementTree.parse(tmp_path / "out" / "sensitivity.svg")
    words = {text.text for text in plot.iter("{http://www.w3.org/2000/svg}text")}
    assert {each["group"] for each in ranked} < words
    assert "everything" in (tmp_path / "out" / "sensitivity.html").read_text(encoding="utf-8")

    table = call("sensitivity", recipe(place), "--cache", place / "cache", "--graph", "image")
    assert table.code == 0
    assert re.findall(r"image: [\w.]+", table.out)[: len(ranked)] == [each["group"] for each in ranked]
    assert f"Most sensitive: {ranked[0]['group']}" in table.out
    again = call("sensitivity", recipe(place), "-o", tmp_path / "out", "--json")
    assert (again.code, again.documents[0]["error"]["code"]) == (1, "output.exists")


WRONG: dict[str, tuple[dict[str, Any], list[str], str, str]] = {
    "no quantise": ({"quantise": None}, [], "recipe.invalid", "quantises nothing"),
    "no images": ({"quantise": {"image": {"scheme": "int8-qdq"}}}, [], "recipe.invalid", "names none"),
    "no such graph": ({}, ["--graph", "head:tags"], "quantise.graph", "no such graph"),
    "a graph without a scheme": ({}, ["--graph", "head:classes"], "recipe.invalid", "by layers"),
    "a scheme without layers": (
        {"quantise": {**squeezed.QUANTISE, "image": {"scheme": "fp16"}}}, [], "recipe.invalid", "by layers"
    ),
    "a graph without layers": (
        {"quantise": {**squeezed.QUANTISE, "head": {"scheme": "int8-qdq"}}}, ["--graph", "head:classes"],
        "quantise.graph", "no layers to rank",
    ),
    "a student": (
        {"distil": {"student": "test_vit", "images": "gate", "source": "blocks"}}, [], "recipe.invalid",
        "student",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "options", "code", "words"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_ranked_is_refused(
    place: Path, call: Call, changes: dict[str, Any], options: list[str], code: str, words: str
) -> None:
    answer = call("sensitivity", recipe(place, **changes), "--cache", place / "cache", "--json", *options)
    assert answer.code == 1
    (document,) = answer.documents
    assert document["error"]["code"] == code
    assert words in document["error"]["message"]
    assert "Traceback" not in answer.err


def test_the_help_has_examples(call: Call) -> None:
    answer = call("sensitivity", "--help")
    assert answer.code == 0
    assert "promptray sensitivity recipe.yaml --graph image -o ranking" in answer.out
