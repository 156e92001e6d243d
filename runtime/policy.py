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

from promptray.runtime.bundle.image_rules import Door
from promptray.runtime.bundle.words import body_part_words
from promptray.runtime.dicom import codes, tags
from promptray.runtime.errors import ImageError
from promptray.runtime.picture import Notice, Picture, notice

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

#: Defined terms of Modality (PS3.3 C.7.3.1.1.1) that an error may quote; anything else could be a name.
_QUOTABLE = frozenset("CR CT DX ECG IO MG MR NM OT PT PX RF RG RTDOSE RTPLAN SC SEG SM SR US XA XC".split())

#: Fewer levels than these between black and white: a 12-bit film in a 16-bit PNG, say, shows 16.
_NARROW = 32
_STORAGE = "1.2.840.10008.5.1.4.1.1."
#: SOP classes of raw detector data: Digital X-Ray, Mammography, Intra-Oral and Breast Projection X-Ray Image
#: Storage - For Processing (PS3.4 B.5).
_FOR_PROCESSING = frozenset(_STORAGE + end for end in ("1.1.1", "1.2.1", "1.3.1", "13.1.5"))
#: SOP classes of X-ray images of one modality only, and that modality: Mammography, Breast Tomosynthesis and
#: Breast Projection; Intra-Oral.
_MODALITY_OF_CLASS = {_STORAGE + "1.3": "IO"} | {_STORAGE + end: "MG" for end in ("1.2", "13.1.3", "13.1.4")}

#: SOP classes of what was converted from another form (PS3.3 A.8): Secondary Capture, single and multi-frame.
_SECONDARY_CAPTURE = frozenset(_STORAGE + end for end in ("7", "7.1", "7.2", "7.3", "7.4"))

#: Notices that tell of an absent tag: refusals in strict mode.
_ABSENCES = frozenset(
    {"modality-absent", "body-part-absent", "window-absent", "file-meta-absent", "sign-absent"}
)


def _text(dataset: Dataset, keyword: str) -> list[str]:
    value = tags.text(dataset, keyword)
    return [] if value is None else [value]


def _uid(dataset: Dataset, keyword: str) -> list[str]:
    value = _text(dataset, keyword)
    if value and tags.uid(dataset, keyword) is None:
        raise tags.unreadable(keyword, "is no UID")
    return value


@dataclass(frozen=True)
class Rule:
    """One row of the policy table.

    Attributes
    ----------
    keyword : str
        The tag that is looked at.
    contradicts : callable
        (what the tag states, in upper case; door) -> whether it contradicts what the model was made for.
    code : str
        The refusal when it does.
    expected : callable
        door -> what would be right, for the message; empty where the door asks nothing of this tag.
    absent : str or None
        The notice when the tag is absent. None: absence says nothing.
    read : callable
        (data set, keyword) -> all that the tag states, empty where it is absent.
    """

    keyword: str
    contradicts: Callable[[str, Door], bool]
    code: str
    expected: Callable[[Door], str]
    absent: str | None = None
    read: Callable[[Dataset, str], list[str]] = _text


def _names_refused_part(value: str, door: Door) -> bool:
    """Tell whether a refused body part occurs as whole words: 'LEFT BREAST' names BREAST."""
    words = f" {body_part_words(value)} "
    return any(f" {body_part_words(part)} " in words for part in door.refused_body_parts)


def _is_no_human(value: str, _: Door) -> bool:
    return value not in ("HOMO SAPIENS", "HUMAN")


def _is_of_another_class(sop_class: str, door: Door) -> bool:
    modality = _MODALITY_OF_CLASS.get(sop_class)
    return sop_class in _FOR_PROCESSING or (modality is not None and modality not in door.modalities)


def _expected_part(door: Door) -> str:
    return "not " + " or ".join(door.refused_body_parts) if door.refused_body_parts else ""


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
        _expected_part,
        "body-part-absent",
    ),
    Rule(
        "AnatomicRegionSequence",
        _names_refused_part,
        "image.contradiction",
        _expected_part,
        read=codes.terms_and_meanings,
    ),
    Rule("PatientSpeciesDescription", _is_no_human, "image.contradiction", lambda _: "a human"),
    Rule(
        "PatientSpeciesCodeSequence",
        _is_no_human,
        "image.contradiction",
        lambda _: "a human",
        read=codes.terms,
    ),
    Rule(  # raw detector data (PS3.3 C.8.11.1): not windowed, often inverted, never what a model saw
        "PresentationIntentType",
        lambda value, _: body_part_words(value) == "FOR PROCESSING",
        "image.contradiction",
        lambda _: "FOR PRESENTATION",
    ),
    Rule(
        "SOPClassUID",
        _is_of_another_class,
        "image.contradiction",
        lambda door: "images for presentation of " + " or ".join(door.modalities),
        read=_uid,
    ),
)


def check_tags(dataset: Dataset, door: Door, declared: str | None) -> list[Notice]:
    """Apply every row of :data:`RULES` to a DICOM object; return the notices of absent tags.

    A declared modality stands in for an absent tag and must agree with a present one.
    """
    notices = []
    for rule in RULES:
        values = [value.upper() for value in rule.read(dataset, rule.keyword)]
        if not values and rule.keyword == "Modality" and declared is not None:
            check_declared(door, declared)
        elif not values and rule.absent and rule.expected(door):
            notices.append(notice(rule.absent))
        for value in values:
            if rule.contradicts(value, door):
                raise _contradiction(rule, value, door)
    if (tags.text(dataset, "BurnedInAnnotation") or "").upper() == "YES":
        notices.append(notice("burned-in-text"))
    if tags.uid(dataset, "SOPClassUID") in _SECONDARY_CAPTURE:
        notices.append(notice("secondary-capture"))
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
    source = picture.source
    if min(source.rows, source.columns) < door.minimum_side:
        raise ImageError(
            "image.too-small",
            "the picture is smaller than the model's least side",
            expected=f"at least {door.minimum_side} rows and columns",
            found=f"{source.rows} x {source.columns}",
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
