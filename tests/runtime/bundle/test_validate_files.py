"""Rules of files and of the golden set, each broken once."""

from __future__ import annotations

import pytest

from promptray.runtime.bundle.parse import parse_manifest
from promptray.runtime.errors import BundleError
from tests import bundle_factory as factory
from tests.runtime.bundle.manifest_edits import Document, Edits, edited

EDITS = Edits()
broken, sound = EDITS.broken, EDITS.sound


@broken("does not list 'parity.json'")
def file_not_listed(doc: Document) -> None:
    del doc["files"]["parity.json"]


@broken("does not list 'golden/images/016.png'")
def image_not_listed(doc: Document) -> None:
    doc["golden"]["images"].append("golden/images/016.png")


TWO_ROLES = [
    ("parity", "tokenizer.json"),
    ("parity", "golden/golden.safetensors"),
    ("text.tokenizer", "golden/images/003.png"),
    ("golden.tensors", factory.BANK),
    ("golden.tensors", factory.HEAD_GRAPH),
]


@pytest.mark.parametrize(("field", "other"), TWO_ROLES)
def test_a_file_has_one_role(field: str, other: str) -> None:
    def edit(doc: Document) -> None:
        *parents, name = field.split(".")
        (doc[parents[0]] if parents else doc)[name] = other

    with pytest.raises(BundleError, match=r"a file's role is not unique") as caught:
        parse_manifest(edited(edit))
    assert (caught.value.code, caught.value.found) == ("bundle.format", other)


@broken("needs at least 16 images")
def fifteen_golden_images(doc: Document) -> None:
    doc["golden"]["images"].pop()


@broken("$.golden.images is not unique")
def one_golden_image_sixteen_times(doc: Document) -> None:
    doc["golden"]["images"] = doc["golden"]["images"][:1] * 16


@broken("$.heads[0].score_tolerance is not a positive number")
def golden_without_tolerance(doc: Document) -> None:
    doc["heads"][0]["score_tolerance"] = 0.0


@broken("$.heads[0].map.grid is finer than")
def map_that_does_not_fit(doc: Document) -> None:
    doc["heads"][0]["map"]["grid"] = [3, factory.SIDE + 1]
    doc["graphs"][1]["outputs"][1]["dims"] = ["batch", "prompts", 3, factory.SIDE + 1]


@sound
def map_that_does_not_divide_evenly(doc: Document) -> None:
    doc["heads"][0]["map"]["grid"] = [3, 3]
    doc["graphs"][1]["outputs"][1]["dims"] = ["batch", "prompts", 3, 3]


test_a_broken_manifest_is_refused, test_a_sound_manifest_is_read = EDITS.tests()
