"""Edits of a sound manifest: test files register those that must be refused and those that stay valid."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from promptray.runtime.bundle.parse import parse_manifest
from promptray.runtime.errors import BundleError
from tests import bundle_factory as factory

Document = dict[str, Any]
Edit = Callable[[Document], object]


class Edits:
    """The edits of one test file, and the tests that they make."""

    def __init__(self) -> None:
        self._broken: list[tuple[str, Edit]] = []
        self._sound: list[Edit] = []

    def broken(self, says: str) -> Callable[[Edit], Edit]:
        """Register an edit that must be refused with these words."""

        def register(edit: Edit) -> Edit:
            self._broken.append((says, edit))
            return edit

        return register

    def sound(self, edit: Edit) -> Edit:
        """Register an edit that must stay valid."""
        self._sound.append(edit)
        return edit

    def tests(self) -> tuple[Callable[..., None], Callable[..., None]]:
        """Return a test of every broken manifest and one of every sound one."""

        names = [_name(edit) for _, edit in self._broken]

        @pytest.mark.parametrize(("says", "edit"), self._broken, ids=names)
        def test_a_broken_manifest_is_refused(says: str, edit: Edit) -> None:
            with pytest.raises(BundleError) as caught:
                parse_manifest(edited(edit))
            assert caught.value.code == "bundle.format"
            assert says in caught.value.message
            assert caught.value.cure

        @pytest.mark.parametrize("edit", self._sound, ids=map(_name, self._sound))
        def test_a_sound_manifest_is_read(edit: Edit) -> None:
            parse_manifest(edited(edit))

        return test_a_broken_manifest_is_refused, test_a_sound_manifest_is_read


def _name(edit: Edit) -> str:
    return getattr(edit, "__name__", repr(edit))


def edited(edit: Edit) -> bytes:
    """The factory's document after an edit, its files listed."""
    document = json.loads(factory.listed(factory.document()))
    edit(document)
    for head in document["heads"][1:]:
        for name in (head["bank"]["file"], f"graphs/head/{head['name']}/fp32-20.onnx"):
            document["files"].setdefault(name, {"sha256": "0" * 64, "size": 0})
    return json.dumps(document).encode()


# Edits that several files begin with; all of them leave the manifest valid


def bank_of(doc: Document) -> Document:
    """The bank of the first head."""
    bank: Document = doc["heads"][0]["bank"]
    return bank


def alternatives(doc: Document) -> None:
    """Findings of which one is true."""
    doc["heads"][0].update(relation="exclusive", activation="softmax")


def bank_of_one_vector(doc: Document) -> None:
    """One vector for each prompt instead of rows."""
    bank_of(doc).update(tensors=bank_of(doc)["tensors"][:1], row_buckets=[], row_bias=None)
    doc["graphs"][1]["inputs"] = doc["graphs"][1]["inputs"][:3]
    doc["graphs"][2]["outputs"] = doc["graphs"][2]["outputs"][:1]


def no_text_at_all(doc: Document) -> None:
    """Classes instead of prompts."""
    bank_of_one_vector(doc)
    doc["heads"][0]["set"] = "fixed"
    doc["text"] = None
    doc["graphs"] = doc["graphs"][:2]
    for finding in doc["findings"]:
        finding["prompts"] = []


def rename_graph(graph: Document, doc: Document, name: str) -> None:
    """Another file for a graph."""
    graph["file"] = name
    doc["files"][name] = {"sha256": "0" * 64, "size": 0}
