"""What the manifest says of changed graphs, each entry for one back-end and class of machines."""

from __future__ import annotations

import msgspec

from promptray.runtime.bundle.fields import Consumer, HeadName, Text


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the entries: immutable, keyword-only, closed."""


class GatedHead(_Struct, frozen=True, kw_only=True):
    """A head whose scores come from changed graphs, and how near to its gated answers they must be."""

    head: HeadName
    score_tolerance: float
    """Most that a golden score may differ from the one that was gated, absolute."""
    map_tolerance: float | None = None
    """Likewise of a map; None exactly where the head has no map."""
    report: Text
    """The gates' report, JSON."""
    page: Text
    """The same as one HTML page, without pictures."""


class GatedText(_Struct, frozen=True, kw_only=True):
    """A changed text graph: prompts added with it passed a gate of their own."""

    head: HeadName
    """The head whose bank it adds to."""
    tolerance: float
    """Most that an encoded finding may differ from the one that was gated, as a share of its largest
    number."""
    report: Text
    page: Text


class Gated(_Struct, frozen=True, kw_only=True):
    """Changed graphs (quantised, distilled) that passed their gates on one backend and class of machine."""

    consumer: Consumer
    answers: Text
    """Their answers to the golden pictures as they were gated: what a machine of the class must give."""
    heads: list[GatedHead] = []
    text: GatedText | None = None
