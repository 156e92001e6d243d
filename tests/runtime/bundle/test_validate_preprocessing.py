"""Rules of preprocessing, each broken once."""

from __future__ import annotations

from tests import bundle_factory as factory
from tests.runtime.bundle.manifest_edits import Document, Edits

EDITS = Edits()
broken, sound = EDITS.broken, EDITS.sound


@broken("may be larger than the result")
def pads_smaller_than_the_resize(doc: Document) -> None:
    doc["preprocessing"]["steps"][1]["size"] = 39


@broken("may be larger than the result")
def pads_a_picture_of_any_size(doc: Document) -> None:
    del doc["preprocessing"]["steps"][0]


@broken("does not cut a square")
def crops_more_than_there_is(doc: Document) -> None:
    doc["preprocessing"]["steps"][2]["size"] = 42


@broken("does not cut a square")
def crops_before_padding(doc: Document) -> None:
    doc["preprocessing"]["steps"][1:] = [{"op": "centre_crop", "size": factory.SIDE}]


@broken("do not end at height x width")
def ends_at_another_size(doc: Document) -> None:
    doc["preprocessing"]["steps"].pop()


@broken("do not end at height x width")
def ends_at_an_unknown_size(doc: Document) -> None:
    doc["preprocessing"]["steps"][1:] = []


@broken("one number for each of 3 channels")
def one_mean_for_three_channels(doc: Document) -> None:
    doc["preprocessing"]["normalise"]["mean"] = [0.5]


@broken("cannot normalise")
def divides_by_zero(doc: Document) -> None:
    doc["preprocessing"]["normalise"]["std"] = [0.25, 0.0, 0.25]


def two_filters(doc: Document, first: str, second: str, levels: str) -> None:
    side = factory.SIDE
    doc["preprocessing"]["levels"] = levels
    doc["preprocessing"]["steps"] = [
        {"op": "resize_longer_side", "size": 2 * side, "interpolation": first, "rounding": "truncate-both"},
        {"op": "pad_square", "size": 2 * side},
        {"op": "squash", "size": side, "interpolation": second},
    ]


@sound
def whole_levels_then_fractions(doc: Document) -> None:
    two_filters(doc, "lanczos", "cubic", "float32")


@sound
def lanczos_of_whole_levels(doc: Document) -> None:
    two_filters(doc, "lanczos", "bicubic", "uint8")


@broken("give fractions to a filter of whole levels")
def fractions_then_whole_levels(doc: Document) -> None:
    two_filters(doc, "bicubic", "lanczos", "float32")


@broken("keeps fractions, and no filter gives any")
def fractions_of_which_there_are_none(doc: Document) -> None:
    two_filters(doc, "lanczos", "area", "float32")


@broken("cubic is a filter of fractions")
def cubic_of_whole_levels(doc: Document) -> None:
    two_filters(doc, "lanczos", "cubic", "uint8")


@sound
def pads_only(doc: Document) -> None:
    doc["preprocessing"]["steps"] = [
        {"op": "resize_longer_side", "size": factory.SIDE, "interpolation": "area"},
        {"op": "pad_square", "size": factory.SIDE, "value": 7},
    ]


test_a_broken_manifest_is_refused, test_a_sound_manifest_is_read = EDITS.tests()
