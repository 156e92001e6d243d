"""What an examination comes back as: scores of each side and of the whole, and what they were made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import msgspec

from promptray.runtime.bundle.manifest import Code, Examination
from promptray.runtime.exam_rule import Pooled
from promptray.runtime.finding_names import ByFinding
from promptray.runtime.json_schema import schema_of
from promptray.runtime.result import BundleRef, NoticeRef, Result, ResultDocument, Summary

#: Why an image does not enter an examination: stable codes beside those of refused images.
LEFT_OUT: dict[str, str] = {
    "view-unknown": "Its tags state no view in the standard's terms, and none was declared.",
    "view-contradictory": "Its tags contradict each other on the view or the side.",
    "view-modified": "It is no plain view: its tags state a modifier, such as an implant displaced.",
    "view-not-expected": "Its view is none of those that the bundle's rule names.",
}


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the document's structures."""


class ExamImage(_Struct, frozen=True):
    """An image that entered."""

    number: int
    """Its place among the sources, counted from 1: names may repeat."""
    name: str
    view: str
    view_declared: bool
    """Whether the caller had to say something of the view that no tag says."""
    result: ResultDocument


class LeftOutImage(_Struct, frozen=True):
    """An image that did not enter, and has no score here."""

    number: int
    name: str
    view: str | None
    """As far as it is known."""
    refused: bool
    """Whether the door refused it, as it would refuse the image alone."""
    code: str
    """One of ``LEFT_OUT``, or the code of the error that refused it."""
    message: str


class ExamFinding(_Struct, frozen=True):
    """The pooled score of one finding."""

    key: str
    display: str
    head: str
    code: Code | None
    of: Pooled
    """What was pooled. None of them is the probability of a disease."""
    value: float
    views: list[str]
    """The views it was made of."""


class ExamScores(_Struct, frozen=True):
    """Scores of a side or of the examination."""

    findings: list[ExamFinding]
    summaries: list[Summary]
    """What alternatives say together, one for each head that has them."""

    @property
    def scores(self) -> ByFinding[ExamFinding]:
        """Findings by name, as of a :class:`~promptray.runtime.result.Result`."""
        return ByFinding((finding.head, finding.key, finding) for finding in self.findings)


class RuleRef(_Struct, frozen=True):
    """The bundle's rule, and how it reads."""

    rule: Examination
    words: list[str]


class ExamDocument(_Struct, frozen=True):
    """The JSON document of an examination."""

    schema: Literal["promptray-examination"]
    schema_version: Literal[1]
    software: str
    bundle: BundleRef
    rule: RuleRef
    study_instance_uid: str | None
    examination: ExamScores | None
    """Null where the rule keeps sides apart."""
    sides: dict[str, ExamScores]
    """By ``L`` and ``R``; empty where the views have no side."""
    missing_views: list[str]
    images: list[ExamImage]
    left_out: list[LeftOutImage]
    notices: list[NoticeRef]
    """Of the examination; those of an image are in its result."""


def exam_schema() -> dict[str, Any]:
    """Return the JSON Schema of the examination document."""
    return schema_of(ExamDocument)


class ExamResult:
    """Scores of an examination. Immutable; safe to share between threads.

    Attributes
    ----------
    document : ExamDocument
    results : tuple of Result
        Of the images that entered, in the order of ``document.images``, with their maps.

    Examples
    --------
    >>> exam.examination.scores["D"].value                  # doctest: +SKIP
    0.27
    >>> exam.examination.summaries[0].groups["dense"]       # doctest: +SKIP
    0.71
    >>> exam.missing_views                                  # doctest: +SKIP
    ('R MLO',)
    """

    def __init__(self, document: ExamDocument, results: Sequence[Result]) -> None:
        self.document = document
        self.results = tuple(results)

    @property
    def examination(self) -> ExamScores | None:
        """Scores of the whole; None where the rule keeps sides apart."""
        return self.document.examination

    @property
    def sides(self) -> Mapping[str, ExamScores]:
        """Scores by side, ``L`` and ``R``; empty where the views have no side."""
        return MappingProxyType(self.document.sides)

    @property
    def missing_views(self) -> tuple[str, ...]:
        """Views of the rule that no image shows, or whose image was refused."""
        return tuple(self.document.missing_views)

    @property
    def left_out(self) -> tuple[LeftOutImage, ...]:
        """Images that did not enter, each with its reason."""
        return tuple(self.document.left_out)

    @property
    def notices(self) -> tuple[NoticeRef, ...]:
        """What to be careful about, as stable codes with a message."""
        return tuple(self.document.notices)

    def to_json(self) -> dict[str, Any]:
        """Return the document as plain containers (see ``docs/exam.schema.json``)."""
        document: dict[str, Any] = msgspec.to_builtins(self.document)
        return document
