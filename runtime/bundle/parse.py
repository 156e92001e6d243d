"""From the bytes of ``bundle.json`` to a manifest that can be trusted to mean one thing."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, NoReturn

import msgspec

from promptray.runtime.bundle.manifest import FORMAT, FORMAT_VERSION, Manifest
from promptray.runtime.bundle.names import MANIFEST
from promptray.runtime.bundle.validate import check_manifest
from promptray.runtime.errors import BundleError

LARGEST_MANIFEST = 16 << 20


def parse_manifest(raw: bytes) -> Manifest:
    """Decode and check the bytes of ``bundle.json``.

    The version is decided before anything else, so that a later format is refused as such and not for a
    field it has.

    Raises
    ------
    BundleError
        ``bundle.format``, ``bundle.version`` or ``bundle.unsafe-path``.
    """
    if len(raw) > LARGEST_MANIFEST:
        _refuse(
            "the manifest is too large", expected=f"<= {LARGEST_MANIFEST} bytes", found=f"{len(raw)} bytes"
        )
    try:
        document = strict_json(raw)
    except ValueError as error:
        _refuse(f"not strict JSON: {error}")
    _check_version(document)
    try:
        manifest = msgspec.convert(document, Manifest)
    except msgspec.ValidationError as error:
        _refuse(f"breaks the schema: {error}")
    check_manifest(manifest)
    return manifest


def strict_json(raw: bytes) -> Any:
    """Decode UTF-8 JSON, refusing what two parsers may read differently.

    Raises
    ------
    ValueError
        For bytes that are not UTF-8, a byte order mark, a key twice in one object, ``NaN``, ``Infinity``, a
        number that is no finite double, half of a character, or nesting too deep to parse.
    """
    try:
        document = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique_keys,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
        if b"\\u" in raw:
            json.dumps(document, ensure_ascii=False).encode()  # an escape may be half of a character
        return document
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {twice!r} occurs twice in one object")
    return mapping


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _finite(digits: str) -> float:
    number = float(digits)
    if number in (float("inf"), float("-inf")):
        raise ValueError(f"{digits} is too large for a double")
    return number


def _check_version(document: Any) -> None:
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        _refuse(f"not the manifest of a bundle: 'format' is not {FORMAT!r}")
    version = document.get("format_version")
    if type(version) is not int:
        _refuse("'format_version' is not an integer", found=repr(version)[:40])
    if version != FORMAT_VERSION:
        raise BundleError(
            "bundle.version",
            f"this software reads bundle format {FORMAT_VERSION}",
            artefact=MANIFEST,
            expected=f"format_version {FORMAT_VERSION}",
            found=f"format_version {version}",
            cure="`pip install --upgrade promptray`"
            if version > FORMAT_VERSION
            else "build the bundle again with `promptray build`",
        )


def _refuse(message: str, *, expected: str | None = None, found: str | None = None) -> NoReturn:
    raise BundleError(
        "bundle.format",
        message,
        artefact=MANIFEST,
        expected=expected,
        found=found,
        cure="build the bundle again with `promptray build`",
    )
