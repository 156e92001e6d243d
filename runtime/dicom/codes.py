"""Coded tags (PS3.3 8.8): what the items of a code sequence state, as words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from promptray.runtime.dicom import tags

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

#: Designators of SNOMED CT and of its predecessor's codes (PS3.16 8.1).
_SNOMED = frozenset({"SCT", "SRT", "SNM3", "99SDM"})

#: Terms of SNOMED codes, whatever language their meaning is written in: species (PS3.16 CID 7454, with the
#: retired codes of Homo sapiens) and breasts (CID 4031, CID 6022). Older codes stand beside the present ones.
_TERMS = {
    **dict.fromkeys(("337915000", "L-85003", "30996001", "L-85B00"), "HOMO SAPIENS"),
    **dict.fromkeys(("76752008", "T-04000", "181131000", "63762007", "T-04080"), "BREAST"),
    **dict.fromkeys(("80248007", "T-04030"), "LEFT BREAST"),
    **dict.fromkeys(("73056007", "T-04020"), "RIGHT BREAST"),
}


def terms(dataset: Dataset, keyword: str) -> list[str]:
    """Return each item's term or, of an unknown code, the code; the meaning only where there is no code."""
    stated = (_code(item) or _meaning(item) for item in tags.items(dataset, keyword))
    return [one for one in stated if one]


def terms_and_meanings(dataset: Dataset, keyword: str) -> list[str]:
    """Return each item's term (of an unknown code, the code) and the meaning it states."""
    items = tags.items(dataset, keyword)
    return [one for item in items for one in (_code(item), _meaning(item)) if one]


def snomed_code(item: Dataset) -> str | None:
    """Return the code of an item in upper case where it is one of SNOMED's; None of other schemes."""
    snomed = (tags.text(item, "CodingSchemeDesignator") or "").upper() in _SNOMED
    return (_code_value(item) or "").upper() or None if snomed else None


def _code(item: Dataset) -> str | None:
    code = _code_value(item)
    return _TERMS.get(snomed_code(item) or "", code)


def _code_value(item: Dataset) -> str | None:
    codes = (tags.text(item, keyword) for keyword in ("CodeValue", "LongCodeValue", "URNCodeValue"))
    return next(filter(None, codes), None)


def _meaning(item: Dataset) -> str | None:
    """Return the code meaning; in some character sets letters hold the byte that separates values."""
    value = tags.element_value(item, "CodeMeaning")
    several = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    return " ".join(map(str, value)) if several else tags.text(item, "CodeMeaning")
