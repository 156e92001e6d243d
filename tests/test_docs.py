"""What the documents say of codes, schemas and recipes is what the code does."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import yaml

from promptray.calibrate.bench.sla import _BYTES, _RATE, _TERM, _TIME
from promptray.calibrate.pipeline.tensorrt_recipe import TensorRTRecipe
from promptray.cli import run
from promptray.export.recipe import Recipe, read_recipe
from promptray.runtime.backends import OF_THE_HOST
from promptray.runtime.errors import CODES
from tools.write_docs import pages

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


@pytest.mark.parametrize("name", sorted(pages()))
def test_a_written_page_is_up_to_date(name: str) -> None:
    committed = (ROOT / name).read_text(encoding="utf-8")
    assert committed == pages()[name], "run tools/write_docs.py"


def test_every_code_of_the_table_is_raised_somewhere() -> None:
    parts = ("runtime", "export", "calibrate", "promptray")
    sources = [path for part in parts for path in (ROOT / part).rglob("*.py")]
    text = "".join(path.read_text(encoding="utf-8") for path in sources if path.name != "errors.py")
    assert [code for code in CODES if f'"{code}"' not in text] == []


def test_lines_of_score_are_valid_by_the_committed_schema(
    carzero_bundle: Path, carzero_checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    schema = json.loads((DOCS / "result.schema.json").read_text(encoding="utf-8"))
    image = carzero_checkpoint / "images" / "half.png"
    assert run(["score", str(carzero_bundle), str(image), "--modality", "DX", "--json"]) == 0
    jsonschema.Draft202012Validator(schema).validate(json.loads(capsys.readouterr().out))


EXAMPLES: list[str] = re.findall(
    r"```yaml\n(.*?)```", (DOCS / "recipe.md").read_text(encoding="utf-8"), re.DOTALL
)
CHEXPERT5 = ["atelectasis", "cardiomegaly", "consolidation", "pulmonary edema", "pleural effusion"]
KAD14 = [
    "atelectasis", "cardiomegaly", "pleural effusion", "infiltration", "pulmonary mass", "nodule",
    "pneumonia", "pneumothorax", "consolidation", "pulmonary edema", "emphysema", "pulmonary fibrosis",
    "pleural thickening", "hernia",
]  # fmt: skip
KEYS = (
    ["effusion", "wordless"],
    ["normal", "pneumonia"],
    ["effusion"],
    ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"],
    [*CHEXPERT5, "rib fracture"],
    KAD14,
    ["normal", "edema", "effusion"],
    list("abcd"),
    ["normal", "bacterial pneumonia", "viral pneumonia"],
    [f"density {letter}" for letter in "ABCD"],
    list("abcd"),
)


@pytest.mark.parametrize(("example", "keys"), list(zip(EXAMPLES, KEYS, strict=True)))
def test_a_recipe_of_the_documentation_is_a_recipe(example: str, keys: list[str], tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(example, encoding="utf-8")
    recipe = read_recipe(tmp_path / "recipe.yaml")
    assert [finding.key for finding in recipe.findings] == keys


@pytest.mark.parametrize("example", EXAMPLES)
def test_what_is_marked_optional_may_be_left_out(example: str, tmp_path: Path) -> None:
    """A line marked optional goes, and with it the deeper lines below it."""
    kept, cut = [], None
    for line in example.splitlines():
        indent = len(line) - len(line.lstrip())
        if cut is not None and line.strip() and indent > cut:
            continue
        cut = indent if "# optional" in line else None
        kept += [] if cut is not None else [line]
    (tmp_path / "recipe.yaml").write_text("\n".join(kept), encoding="utf-8")
    recipe = read_recipe(tmp_path / "recipe.yaml")
    assert recipe.golden is None
    assert recipe.text_model is None


def fields(kind: Any) -> Iterator[str]:
    """Names of a structure's fields and of the structures in them."""
    for field in msgspec.inspect.type_info(kind).fields:  # type: ignore[attr-defined]
        yield field.name
        yield from inner(field.type)


def inner(kind: Any) -> Iterator[str]:
    if isinstance(kind, msgspec.inspect.StructType):
        yield from fields(kind.cls)
    elif isinstance(kind, msgspec.inspect.ListType):
        yield from inner(kind.item_type)
    elif isinstance(kind, msgspec.inspect.UnionType):
        for item in kind.types:
            yield from inner(item)


def test_every_key_of_a_recipe_is_in_an_example_and_explained() -> None:
    example = "\n".join(EXAMPLES)
    page = (DOCS / "recipe.md").read_text(encoding="utf-8")
    names = set(fields(Recipe))
    assert {"minimum_side", "allow_empty", "scheme", "licence"} <= names
    assert [name for name in names if not re.search(rf"^[ -]*{name}:", example, re.MULTILINE)] == []
    assert [name for name in names if f"`{name}`" not in page] == []


def test_the_section_about_engines_is_read_and_explains_every_key() -> None:
    page = (DOCS / "recipe.md").read_text(encoding="utf-8").partition("### `tensorrt`")[2]
    example = re.search(r"\n\n((?:    .*\n)+)", page)
    assert example
    section = msgspec.convert(yaml.safe_load(example[1])["tensorrt"], TensorRTRecipe)
    assert set(TensorRTRecipe.__struct_fields__) <= yaml.safe_load(example[1])["tensorrt"].keys()
    assert [name for name in TensorRTRecipe.__struct_fields__ if f"| `{name}` |" not in page] == []
    optional = re.findall(r"^      ?(\w+):.*# optional: (fp16|false|none)", example[1], re.MULTILINE)
    plain = TensorRTRecipe()
    stated = {"fp16": "fp16", "false": False, "none": []}
    assert {name: stated[word] for name, word in optional} == {
        name: getattr(plain, name) for name, _ in optional
    }
    assert section.settings.workspace_bytes == plain.settings.workspace_bytes


def test_results_that_the_benchmarks_name_are_committed() -> None:
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    named = re.findall(r"^\|[^|]*\|[^|]*\|[^|]*`(results/[^`]+)`", text, re.MULTILINE)
    assert named
    assert [name for name in named if not list((ROOT / "benchmarks").glob(name))] == []


def test_every_metric_and_unit_of_a_condition_is_explained() -> None:
    text = (DOCS / "bench.md").read_text(encoding="utf-8").partition("## Conditions")[2].partition("## ")[0]
    metrics = {"p50", "p99.9", "mean", "max", "cold", "open", "rss", "gpu", "offline", "server"}
    units = {unit for _, known in (_TIME, _BYTES, _RATE) for unit in known}
    assert {name for name in metrics | units if f"`{name}`" not in text} == set()
    pattern = _TERM.pattern
    assert all(name in pattern for name in metrics if not name.startswith("p"))


def test_acceptance_names_the_processors_backends_and_measured_times() -> None:
    text = (DOCS / "acceptance.md").read_text(encoding="utf-8")
    assert "`tuning`" in text
    assert all(f"`{name}`" in text for name in OF_THE_HOST)
