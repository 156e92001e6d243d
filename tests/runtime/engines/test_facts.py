"""The key of a set of engines is what docs/bundle-format.md says, worked out by the document alone."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from promptray.runtime.engines.facts import EngineBackend
from tests import bundle_factory as factory
from tests.engine_factory import engine_set

DOCUMENT = Path(__file__).parents[3] / "docs" / "bundle-format.md"


def stated() -> tuple[list[str], dict[str, str]]:
    """The elements of the key, and the way of each backend, as the document has them."""
    text = " ".join(DOCUMENT.read_text(encoding="utf-8").split())
    found = re.search(
        r"of `\[([^]]*)\]`, where `way` is how engines are built and run beyond that: "
        r"`([^`]*)`, of `tensorrt_rtx` `([^`]*)`, of `onnxruntime-cuda` `([^`]*)`",
        text,
    )
    assert found
    elements, *ways = found.groups()
    return elements.split(", "), dict(
        zip(("tensorrt", "tensorrt_rtx", "onnxruntime-cuda"), ways, strict=True)
    )


@pytest.mark.parametrize("backend", get_args(EngineBackend))
def test_the_key_of_the_document_is_the_key(backend: EngineBackend) -> None:
    facts = engine_set(
        factory.manifest(files={name: {"sha256": "a" * 64, "size": 1} for name in _files()}),
        {},
        backend=backend,
    )
    elements, ways = stated()
    written: dict[str, Any] = msgspec.to_builtins(facts)
    values = {
        **written,
        "graphs by file": sorted(written["graphs"], key=lambda each: each["file"]),
        "way": ways[backend],
    }
    content = json.dumps([values[each] for each in elements], sort_keys=True).encode()
    assert facts.key == f"{backend}-{hashlib.sha256(content).hexdigest()[:32]}"


def _files() -> list[str]:
    return [graph["file"] for graph in factory.document()["graphs"]]
