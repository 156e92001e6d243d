"""The format document and the schema say what the code does."""

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptray.runtime.bundle import manifest as structures
from promptray.runtime.bundle.gate_summary import ChangedGraph, GateSummary, ImagesOfGate
from promptray.runtime.bundle.manifest import FORMAT_VERSION, Manifest, bank_id, schema, to_json
from promptray.runtime.bundle.names import MOST_FILES
from promptray.runtime.bundle.parity import HeadParity, ParityReport
from promptray.runtime.bundle.parse import LARGEST_MANIFEST, parse_manifest, strict_json
from promptray.runtime.bundle.validate import LARGEST_TOLERANCE, LEAST_GOLDEN
from promptray.runtime.bundle.words import key_fault
from promptray.runtime.errors import CODES
from promptray.runtime.gated_answers import LARGEST_SHARE
from promptray.runtime.site_files import SiteIndex
from tests import bundle_factory as factory

ROOT = Path(__file__).resolve().parents[3]
DOCUMENT = (ROOT / "docs" / "bundle-format.md").read_text(encoding="utf-8")
VALIDATOR = jsonschema.Draft202012Validator(schema())
EXAMPLES = re.findall(r"<!-- schema: (\w+) -->\n```json\n(.*?)```", DOCUMENT, re.DOTALL)


def _example(name: str) -> Any:
    return json.loads(dict(EXAMPLES)[name])


def test_the_committed_schema_is_that_of_the_code() -> None:
    committed = (ROOT / "docs" / "bundle.schema.json").read_text(encoding="utf-8")
    expected = json.dumps(schema(), indent=2) + "\n"
    assert committed == expected, "write json.dumps(schema(), indent=2) to docs/bundle.schema.json"


@pytest.mark.parametrize(("name", "text"), EXAMPLES, ids=[name for name, _ in EXAMPLES])
def test_examples_of_the_document_satisfy_the_schema(name: str, text: str) -> None:
    rules = schema()
    jsonschema.Draft202012Validator.check_schema(rules)
    jsonschema.validate(json.loads(text), {**rules, "$ref": f"#/$defs/{name}"})
    msgspec.convert(json.loads(text), getattr(structures, name))


def test_the_document_has_an_example_of_every_part() -> None:
    parts = {"Provenance", "Preprocessing", "Door", "Graph", "Head", "BankRule", "TextRule", "Golden"}
    assert {name for name, _ in EXAMPLES} == {*parts, "Examination", "Gated", "Engines"}


def test_examples_fit_together() -> None:
    """They make a whole manifest, but for the graphs, the number of golden images and students' gates."""
    document = factory.document()
    document["provenance"] = {**_example("Provenance"), "distilled": None, "distilled_text": None}
    document["door"] = _example("Door")
    document["text"] = _example("TextRule")
    document["examination"] = {**_example("Examination"), "over_sides": "mean"}
    parse_manifest(factory.listed(document))
    assert _example("BankRule")["id"] == bank_id(_example("BankRule")["identity"])


def test_the_site_example_is_an_index() -> None:
    text = re.search(r"<!-- site index -->\n```json\n(.*?)```", DOCUMENT, re.DOTALL)
    assert text
    index = msgspec.convert(strict_json(text[1].encode()), SiteIndex)
    assert index.revision == 7


def test_the_parity_example_is_a_report() -> None:
    text = re.search(r"<!-- parity report -->\n```json\n(.*?)```", DOCUMENT, re.DOTALL)
    assert text
    report = msgspec.convert(strict_json(text[1].encode()), ParityReport)
    assert all(head.decisions == report.images * head.findings for head in report.heads)
    section = DOCUMENT.partition("### 7.1")[2].partition("## 8.")[0]
    gates = (*GateSummary.__struct_fields__, *ImagesOfGate.__struct_fields__, *ChangedGraph.__struct_fields__)
    fields = (*ParityReport.__struct_fields__, *HeadParity.__struct_fields__, *gates)
    assert all(f"`{name}`" in section or f'"{name}"' in section for name in fields)


def test_numbers_of_the_document_are_those_of_the_code() -> None:
    assert DOCUMENT.startswith(f"# The bundle format, version {FORMAT_VERSION}\n")
    assert f"`score_tolerance` is at most {LARGEST_SHARE} of the least standard deviation" in DOCUMENT
    assert f"the other two at most {LARGEST_TOLERANCE}." in DOCUMENT
    assert f"larger than {LARGEST_MANIFEST >> 20} MiB" in DOCUMENT
    assert f"more than {MOST_FILES} files" in DOCUMENT
    assert f"At least {LEAST_GOLDEN} images" in DOCUMENT


def test_codes_of_the_document_exist() -> None:
    named = set(re.findall(r"`((?:bundle|site)\.[a-z-]+)`", DOCUMENT)) - {
        "bundle.json",
        "bundle.sig",
        "site.lock",
    }
    assert named <= CODES.keys()
    refusals = {code for code in CODES if code.startswith("bundle.")} - {
        "bundle.exists",
        "bundle.golden",
        "bundle.unwritable",
    }
    assert refusals <= named


def test_the_schema_and_the_structures_agree_on_the_factory() -> None:
    VALIDATOR.validate(json.loads(factory.listed(factory.document())))


# Round trip

_text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
_key = st.from_regex(
    r"[^\s\x00-\x1f/\\\ud800-\udfff][^\x00-\x1f/\\\ud800-\udfff]{0,20}", fullmatch=True
).filter(lambda key: key_fault(key) is None)
_sha256 = st.binary(min_size=32, max_size=32).map(bytes.hex)
_finite = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def _manifests(draw: st.DrawFn) -> Manifest:
    document = factory.document()
    document["name"] = draw(_text)
    document["model"] = draw(
        st.fixed_dictionaries({"licence": _text, "intended_use": _text, "training_data": _text})
    )
    document["provenance"]["libraries"] = draw(st.dictionaries(_text, _text, max_size=3))
    keys = draw(st.lists(_key, unique=True, min_size=1, max_size=5))
    codes = st.none() | st.fixed_dictionaries({"value": _text, "scheme": _text, "meaning": _text})
    document["findings"] = [
        {
            "key": key,
            "display": draw(_text),
            "prompts": ["p" + draw(_text)],
            "head": "chest",
            "code": draw(codes),
        }
        for key in keys
    ]
    tolerance = st.floats(min_value=1e-9, max_value=0.1)
    document["heads"][0]["score_tolerance"] = draw(tolerance)
    document["heads"][0]["map"]["tolerance"] = draw(tolerance)
    document["preprocessing"]["normalise"]["mean"] = draw(st.lists(_finite, min_size=3, max_size=3))
    document["files"] = {
        name: {"sha256": draw(_sha256), "size": draw(st.integers(0, 2**53))} for name in factory.plain_files()
    }
    return msgspec.convert(document, Manifest)


@settings(deadline=None, max_examples=50)
@given(_manifests())
def test_a_manifest_survives_the_round_trip(manifest: Manifest) -> None:
    raw = to_json(manifest)
    assert parse_manifest(raw) == manifest
    assert to_json(parse_manifest(raw)) == raw  # canonical: one manifest, one hash
    assert raw.endswith(b"}\n")
    VALIDATOR.validate(json.loads(raw))


@settings(deadline=None)
@given(st.dictionaries(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8"))))
def test_a_bank_id_depends_on_content_not_order(identity: dict[str, str]) -> None:
    backwards = dict(reversed(identity.items()))
    assert bank_id(identity) == bank_id(backwards)
    assert bank_id({**identity, "other": "x"}) != bank_id({**identity, "other": "y"})
