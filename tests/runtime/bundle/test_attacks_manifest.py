"""Broken and hostile manifests in bundles that are sealed again, each with the refusal it must get."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.parse import parse_manifest
from tests import bundle_factory as factory
from tests.runtime.bundle.refusals import opening, refused


@pytest.mark.parametrize("version", [0, 1, 2, 3, 5, 99, -1, 10**30])
def test_an_unknown_version(bundle: Bundle, version: int) -> None:
    """Decided first: a later format's new and missing fields are not what the user is told."""
    document = {"format": "promptray-bundle", "format_version": version, "new_field": 1}
    factory.reseal(bundle.path, json.dumps(document).encode())
    error = refused("bundle.version", opening(bundle))
    assert "reads bundle format 4" in error.message
    assert str(version) in str(error.found)
    assert ("upgrade" if version > 4 else "build the bundle again") in str(error.cure)


@pytest.mark.parametrize("version", ["1", 1.0, True, None, [1]])
def test_a_version_that_is_no_integer(bundle: Bundle, version: object) -> None:
    factory.edited(bundle.path, lambda doc: doc.update(format_version=version))
    refused("bundle.format", opening(bundle))


@pytest.mark.parametrize("format", ["promptray-site", "", None, 1])
def test_another_format(bundle: Bundle, format: object) -> None:
    factory.edited(bundle.path, lambda doc: doc.update(format=format))
    refused("bundle.format", opening(bundle))


def _manifest_text(bundle: Bundle) -> bytes:
    return (bundle.path / "bundle.json").read_bytes()


@pytest.mark.parametrize("where", ["top", "files", "deep"])
def test_a_key_twice(bundle: Bundle, where: str) -> None:
    """Parsers differ in which of the two they take."""
    raw = _manifest_text(bundle)
    before, after = {
        "top": (b'"name": "miniature"', b'"name": "other", "name": "miniature"'),
        "files": (b'"parity.json": {', b'"parity.json": {"sha256": "", "size": 0}, "parity.json": {'),
        "deep": (b'"minimum_side": 32', b'"minimum_side": 32, "minimum_\\u0073ide": 32'),
    }[where]
    assert raw.count(before) == 1
    factory.reseal(bundle.path, raw.replace(before, after))
    assert "twice" in refused("bundle.format", opening(bundle)).message


def test_truncated_json(bundle: Bundle) -> None:
    raw = _manifest_text(bundle)
    for length in (0, 1, len(raw) // 2, len(raw) - 3):
        factory.reseal(bundle.path, raw[:length])
        refused("bundle.format", opening(bundle))


@pytest.mark.parametrize(
    "raw",
    [
        b"null", b"[]", b'"bundle"', b"1", b"{}", b"\xff\xfe{\x00}\x00", b"\xef\xbb\xbf{}", b"{}{}",
        b"{'a': 1}", b"{/**/}", b'{"a": NaN}', b'{"a": Infinity}', b'{"a": -Infinity}', b'{"a": 1e999}',
        b'{"a": 01}', b'{"a": "\xff"}', b"[" * 100_000, b'{"a":' * 100_000, b'{"a": ' + b"9" * 10_000 + b"}",
    ],
    ids=lambda raw: ascii(raw[:12]),
)  # fmt: skip
def test_what_is_not_strict_json(bundle: Bundle, raw: bytes) -> None:
    factory.reseal(bundle.path, raw)
    assert refused("bundle.format", opening(bundle)).artefact == "bundle.json"


def test_a_huge_manifest(bundle: Bundle) -> None:
    factory.reseal(bundle.path, _manifest_text(bundle) + b" " * (17 << 20))
    refused("bundle.seal", opening(bundle))  # not read to its end, so not even its hash is right
    error = refused("bundle.format", lambda: parse_manifest(b" " * (17 << 20)))
    assert "too large" in error.message


def test_a_number_that_is_not_finite_anywhere(bundle: Bundle) -> None:
    raw = _manifest_text(bundle)
    for value in (b"NaN", b"1e999", b"-Infinity"):
        factory.reseal(
            bundle.path, raw.replace(b'"score_tolerance": 0.00002', b'"score_tolerance": ' + value)
        )
        refused("bundle.format", opening(bundle))


def _unknown(doc: dict[str, Any]) -> None:
    doc["heads"][0]["temperature"] = 2.0


def _missing(doc: dict[str, Any]) -> None:
    del doc["model"]["intended_use"]


def _wrong_type(doc: dict[str, Any]) -> None:
    doc["preprocessing"]["steps"][1]["value"] = 256


def _unhashed(doc: dict[str, Any]) -> None:
    doc["files"]["parity.json"]["sha256"] = "0" * 64 + "\n"


@pytest.mark.parametrize(
    ("edit", "path"),
    [
        (_unknown, "$.heads[0]"),
        (_missing, "$.model"),
        (_wrong_type, "$.preprocessing.steps[1].value"),
        (_unhashed, "$.files[...].sha256"),
    ],
)
def test_a_schema_fault_says_where(bundle: Bundle, edit: Callable[[dict[str, Any]], None], path: str) -> None:
    factory.edited(bundle.path, edit)
    assert path in refused("bundle.format", opening(bundle)).message
