"""The policy table: what a picture's tags and pixels must not contradict, and what may be absent.

A contradiction refuses. An absent tag warns, and refuses in strict mode. Pixels alone only raise
suspicions, because they prove nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.bundle.manifest import Door, body_part_words
from promptray.runtime.dicom import tags
from promptray.runtime.errors import ImageError
from promptray.runtime.picture import Notice, Picture, notice

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

#: Defined terms of Modality (PS3.3 C.7.3.1.1.1) that an error may quote; anything else could be a name.
_QUOTABLE = frozenset("CR CT DX ECG IO MG MR NM OT PT PX RF RG RTDOSE RTPLAN SC SEG SM SR US XA XC".split())

#: Fewer levels than these between black and white: a 12-bit film in a 16-bit PNG, say, shows 16.
_NARROW = 32
#: Notices that tell of an absent tag: refusals in strict mode.
_ABSENCES = frozenset({"modality-absent", "body-part-absent", "window-absent", "file-meta-absent"})


@dataclass(frozen=True)
class Rule:
    """One row of the policy table.

    Attributes
    ----------
    keyword : str
        The tag that is looked at.
    contradicts : callable
        (tag value in upper case, door) -> whether it contradicts what the model was made for.
    code : str
        The refusal when it does.
    expected : callable
        door -> what would be right, for the message; empty where the door asks nothing of this tag.
    absent : str or None
        The notice when the tag is absent. None: absence says nothing.
    """

    keyword: str
    contradicts: Callable[[str, Door], bool]
    code: str
    expected: Callable[[Door], str]
    absent: str | None = None


def _names_refused_part(value: str, door: Door) -> bool:
    """Tell whether a refused body part occurs as whole words: 'LEFT BREAST' names BREAST."""
    words = f" {body_part_words(value)} "
    return any(f" {body_part_words(part)} " in words for part in door.refused_body_parts)


RULES = (
    Rule(
        "Modality",
        lambda value, door: value not in door.modalities,
        "image.modality",
        lambda door: " or ".join(door.modalities),
        "modality-absent",
    ),
    Rule(
        "BodyPartExamined",
        _names_refused_part,
        "image.contradiction",
        lambda door: "not " + " or ".join(door.refused_body_parts) if door.refused_body_parts else "",
        "body-part-absent",
    ),
    Rule(
        "PatientSpeciesDescription",
        lambda value, _: value not in ("HOMO SAPIENS", "HUMAN"),
        "image.contradiction",
        lambda _: "a human",
    ),
    Rule(  # raw detector data (PS3.3 C.8.11.1): not windowed, often inverted, never what a model saw
        "PresentationIntentType",
        lambda value, _: value == "FOR PROCESSING",
        "image.contradiction",
        lambda _: "FOR PRESENTATION",
    ),
)


def check_tags(dataset: Dataset, door: Door, declared: str | None) -> list[Notice]:
    """Apply every row of :data:`RULES` to a DICOM object; return the notices of absent tags.

    A declared modality stands in for an absent tag and must agree with a present one.
    """
    notices = []
    for rule in RULES:
        value = tags.text(dataset, rule.keyword)
        if value is None and rule.keyword == "Modality" and declared is not None:
            check_declared(door, declared)
        elif value is None and rule.absent and rule.expected(door):
            notices.append(notice(rule.absent))
        elif value is not None and rule.contradicts(value.upper(), door):
            raise _contradiction(rule, value.upper(), door)
    if (tags.text(dataset, "BurnedInAnnotation") or "").upper() == "YES":
        notices.append(notice("burned-in-text"))
    tag = tags.text(dataset, "Modality")
    if declared is not None and tag is not None and tag.upper() != declared:
        raise ImageError(
            "image.modality",
            "the declared modality contradicts the object's own",
            expected=_quote(tag.upper()),
            found=_quote(declared),
            cure="leave modality= out for DICOM objects that state theirs",
        )
    return notices


def check_declared(door: Door, declared: str | None) -> None:
    """Refuse a source without tags whose modality the caller did not declare, or declared wrongly."""
    if declared is None:
        raise ImageError(
            "image.modality-undeclared",
            "the source carries no modality, so the caller must declare it",
            expected=" or ".join(door.modalities),
            cure=f"pass modality={door.modalities[0]!r} if that is what the picture is",
        )
    if declared not in door.modalities:
        raise ImageError(
            "image.modality",
            "the declared modality is not one the model was made for",
            expected=" or ".join(door.modalities),
            found=_quote(declared),
        )


def check_picture(picture: Picture, door: Door, *, strict: bool) -> None:
    """Refuse a picture that is too small or of one value and, in strict mode, one with absent tags."""
    absent = next((each for each in picture.notices if each.code in _ABSENCES), None)
    if strict and absent is not None:
        raise ImageError(
            "image.tag-missing",
            absent.message,
            expected=f"a tag whose absence is the notice {absent.code}",
            cure="complete the header, or score without strict",
        )
    if min(picture.grey.shape) < door.minimum_side:
        raise ImageError(
            "image.too-small",
            "the picture is smaller than the model's least side",
            expected=f"at least {door.minimum_side} rows and columns",
            found=f"{picture.grey.shape[0]} x {picture.grey.shape[1]}",
        )
    if picture.grey.min() == picture.grey.max():
        raise ImageError(
            "image.constant",
            "the picture holds a single grey value",
            expected="an exposed image whose window fits its values",
        )


def with_suspicions(picture: Picture) -> Picture:
    """Return the picture with the notices that its pixels raise."""
    suspicions = []
    if picture.colour is not None and np.ptp(picture.colour, axis=2).any():
        suspicions.append(notice("coloured"))
    if np.ptp(picture.grey) < _NARROW:
        suspicions.append(notice("narrow-range"))
    if looks_inverted(picture.grey):
        suspicions.append(notice("inversion-suspected"))
    return replace(picture, notices=(*picture.notices, *suspicions)) if suspicions else picture


def looks_inverted(grey: NDArray[np.uint8]) -> bool:
    """Tell whether black and white seem swapped: the spine's column is darker than the rest.

    On a radiograph of the trunk, bone and mediastinum make the central columns bright and air makes the
    surroundings dark. Inversion is suspected when the central tenth of the columns is darker than the
    picture's mean by more than 5 of 255 levels. On the 255 frontal chest films of the public development
    set none was suspected and, swapped, all were; of 20 lateral films one was suspected.
    """
    thin = grey[:: max(1, grey.shape[0] // 512)]
    centre, half = grey.shape[1] // 2, max(1, grey.shape[1] // 20)
    return bool(thin[:, max(0, centre - half) : centre + half].mean() < thin.mean() - 5.0)


def _contradiction(rule: Rule, value: str, door: Door) -> ImageError:
    return ImageError(
        rule.code,
        f"the tag {rule.keyword} contradicts what the model was made for",
        expected=rule.expected(door),
        found=_quote(value) if rule.keyword == "Modality" else None,
        cure="score it with a model made for such images",
    )


def _quote(modality: str) -> str:
    return modality if modality in _QUOTABLE else "a modality that is not quoted here"
