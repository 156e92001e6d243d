"""Properties of the bundle's parsers: whatever is changed, a value or a refusal with a registered code."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from promptray.runtime.backends.onnx_files import require_self_contained
from promptray.runtime.bank_file import unpack
from promptray.runtime.bundle.manifest import Manifest
from promptray.runtime.bundle.parse import parse_manifest
from promptray.runtime.errors import CODES, BundleError
from promptray.runtime.prompts import PromptBank
from tests import bundle_factory as factory
from tests.fuzz.small_bundle import write_small

MANY = settings(deadline=None, max_examples=400, suppress_health_check=list(HealthCheck))
WHOLE = json.loads(factory.listed(factory.document()))


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a JSON document below its top."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield (*path, key)
        yield from places(inner, (*path, key))


PLACES = list(places(WHOLE))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 2**70), st.floats(), st.text(max_size=8),
    st.sampled_from(["prompts", "rows", "batch", "float32", "../x", "{}", 16384, 4096, -1e9, "0" * 64]),
)  # fmt: skip
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


def mutate(document: Any, path: tuple[Any, ...], value: Any, *, delete: bool) -> None:
    """Replace or delete a place, unless an earlier change took it away."""
    with contextlib.suppress(KeyError, IndexError, TypeError):
        for key in path[:-1]:
            document = document[key]
        if delete:
            del document[path[-1]]
        else:
            document[path[-1]] = value


@given(st.lists(st.tuples(st.sampled_from(PLACES), VALUES, st.booleans()), min_size=1, max_size=3))
@MANY
def test_a_mutated_manifest(changes: list[tuple[tuple[Any, ...], Any, bool]]) -> None:
    document = copy.deepcopy(WHOLE)
    for path, value, delete in changes:
        mutate(document, path, value, delete=delete)
    raw = json.dumps(document).encode()
    assert manifest_or_code(raw) in {*CODES, "manifest"}


@given(st.binary(max_size=300))
@MANY
def test_any_bytes_for_a_manifest(raw: bytes) -> None:
    assert manifest_or_code(raw) in ("bundle.format", "bundle.version")


def manifest_or_code(raw: bytes) -> str:
    outcome = result_or_code(lambda: parse_manifest(raw))
    return "manifest" if isinstance(outcome, Manifest) else outcome


def result_or_code(call: Callable[[], Any]) -> Any:
    """Return what a call returns, or the code of its refusal."""
    try:
        return call()
    except BundleError as error:
        return error.code


@pytest.fixture(scope="module")
def bank(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("small")
    write_small(folder)
    return (folder / "small.bundle" / factory.BANK).read_bytes()


EDITS = st.lists(
    st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=6), st.integers(0, 6)),
    min_size=1,
    max_size=4,
)


def edited(content: bytes, edits: list[tuple[float, bytes, int]]) -> bytes:
    """Put bytes in places of the content, each in the stead of some others."""
    for place, new, replaced in edits:
        at = int(place * len(content))
        content = content[:at] + new + content[at + replaced :]
    return content


@given(edits=EDITS)
@MANY
def test_a_mutated_bank(bank: bytes, edits: list[tuple[float, bytes, int]]) -> None:
    """A bank that was changed anywhere is refused: it carries the hash of what it says."""
    rule = factory.manifest().heads[0].bank
    read = result_or_code(lambda: unpack(edited(bank, edits), rule, artefact="bank"))
    if not isinstance(read, PromptBank):
        assert read in ("bundle.format", "bundle.foreign-bank")
        return
    whole = unpack(bank, rule, artefact="bank")
    for one, other in zip(read, whole, strict=True):
        assert one.facts() == other.facts()
        for name, tensor in one.tensors.items():
            np.testing.assert_array_equal(tensor, other.tensors[name])


@given(st.binary(max_size=400))
@MANY
def test_any_bytes_for_a_graph(content: bytes) -> None:
    outcome = result_or_code(lambda: require_self_contained(content, "graph.onnx"))
    assert outcome in (None, "bundle.format", "bundle.unsafe-path")
