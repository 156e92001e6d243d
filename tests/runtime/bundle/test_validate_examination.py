"""Rules of the rule of examinations, each broken once."""

from __future__ import annotations

from typing import Any

from tests.runtime.bundle.manifest_edits import Document, Edits

EDITS = Edits()
broken, sound = EDITS.broken, EDITS.sound


def _examination(**changes: Any) -> Document:
    return {"views": ["L CC", "R CC"], "over_views": "mean", "over_sides": "mean", **changes}


@sound
def examination(doc: Document) -> None:
    doc["examination"] = _examination(require_all=True)


@sound
def examination_of_one_side(doc: Document) -> None:
    doc["examination"] = _examination(views=["L CC"], over_sides="none")


@broken("$.examination.views[1] is no view that tags can state")
def examination_of_an_unknown_view(doc: Document) -> None:
    doc["examination"] = _examination(views=["L CC", "R XX"])


@broken("$.examination.views names a view twice")
def examination_of_a_view_twice(doc: Document) -> None:
    doc["examination"] = _examination(views=["L CC", "L CC"])


@broken("$.examination.views gives some views a side and some none")
def examination_with_half_the_sides(doc: Document) -> None:
    doc["examination"] = _examination(views=["L CC", "CC"])


@broken("$.examination.over_sides pools sides, and the views have none")
def examination_that_pools_no_sides(doc: Document) -> None:
    doc["examination"] = _examination(views=["PA", "LL"])


@broken("$.examination.over_views takes the greatest of alternatives that have no order")
def examination_with_the_greatest_of_alternatives(doc: Document) -> None:
    doc["heads"][0].update(relation="exclusive", activation="softmax")
    doc["examination"] = _examination(over_views="max")


test_a_broken_manifest_is_refused, test_a_sound_manifest_is_read = EDITS.tests()
