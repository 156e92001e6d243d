"""Which view of the body a DICOM image shows, as far as its tags state it in the standard's own terms.

View Position (0018,5101) and View Code Sequence (0054,0220) name the projection, Image Laterality
(0020,0062) or Laterality (0020,0060) the side, View Modifier Code Sequence (0054,0222) and Partial View
(0028,1350) what sets an image apart from the plain view (PS3.3 C.8.11.5, C.8.11.7). Terms that are not
the standard's state nothing here: they could be anything, a name included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from promptray.runtime.dicom import codes, tags
from promptray.runtime.errors import ImageError
from promptray.runtime.views import VIEW_CODES

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydicom.dataset import Dataset

Read = TypeVar("Read")

_TERM_OF_CODE = {code: term for term, known in VIEW_CODES.items() for code in known}
#: SNOMED codes of View Modifier (PS3.16 CID 4015), present ones and those of the predecessor.
_MODIFIERS = {
    **dict.fromkeys(("399209000", "R-102D5"), "implant displaced"),
    **dict.fromkeys(("399163009", "R-102D6"), "magnification"),
    **dict.fromkeys(("399055006", "R-102D7"), "spot compression"),
    **dict.fromkeys(("399110001", "R-102C2"), "tangential"),
    **dict.fromkeys(("399161006", "R-102D2"), "cleavage"),
    **dict.fromkeys(("399011000", "R-102D1"), "axillary tail"),
    **dict.fromkeys(("399197002", "R-102D3"), "rolled lateral"),
    **dict.fromkeys(("399226006", "R-102D4"), "rolled medial"),
    **dict.fromkeys(("414493004", "R-102CA"), "rolled inferior"),
    **dict.fromkeys(("415670009", "R-102C9"), "rolled superior"),
    **dict.fromkeys(("442581004", "R-40AB3"), "nipple in profile"),
    **dict.fromkeys(("441752004", "P2-00161"), "anterior compression"),
    **dict.fromkeys(("442593008", "R-40ABE"), "infra-mammary fold"),
    **dict.fromkeys(("442580003", "R-40AB2"), "axillary tissue"),
}
#: A modifier that is stated and not known: the image is no plain view all the same.
OTHER = "other"
_LATERALITIES = ("L", "R", "B", "U")


@dataclass(frozen=True)
class ViewFacts:
    """What the tags say of the view.

    Attributes
    ----------
    view : str or None
        Term of the projection, for example ``MLO``; two joined by a slash where tags contradict each other.
    laterality : str or None
        ``L``, ``R``, ``B`` (both) or ``U`` (unpaired); two joined by a slash likewise.
    modifiers : tuple of str
        What sets it apart from the plain view, for example ``spot compression``.
    """

    view: str | None
    laterality: str | None
    modifiers: tuple[str, ...]


def view_facts(dataset: Dataset) -> ViewFacts:
    """Return what the tags say of the view; never refuses, since no single score depends on it."""
    views = _lenient(lambda: tags.items(dataset, "ViewCodeSequence"), None)
    position = _term(dataset, "ViewPosition")
    terms = [position if position in VIEW_CODES else None]
    terms += [_TERM_OF_CODE.get(_code(item) or "") for item in views or ()]
    sides = [_term(dataset, keyword) for keyword in ("ImageLaterality", "Laterality")]
    modifiers = [word for holder in (dataset, *(views or ())) for word in _modifiers(holder)]
    if views is None:  # a modifier may stand in what cannot be read
        modifiers.append(OTHER)
    if _term(dataset, "PartialView") == "YES":
        modifiers.append("partial")
    return ViewFacts(
        view=_joined(terms),
        laterality=_joined([side if side in _LATERALITIES else None for side in sides]),
        modifiers=tuple(sorted(set(modifiers))),
    )


def _modifiers(holder: Dataset) -> list[str]:
    """Return the modifiers of a view's item; some devices write them beside it."""
    keyword = "ViewModifierCodeSequence"
    items = _lenient(lambda: tags.items(holder, keyword), None)
    return [OTHER] if items is None else [_MODIFIERS.get(_code(item) or "", OTHER) for item in items]


def _code(item: Dataset) -> str | None:
    return _lenient(lambda: codes.snomed_code(item), None)


def _term(dataset: Dataset, keyword: str) -> str | None:
    return (_lenient(lambda: tags.text(dataset, keyword), None) or "").upper() or None


def _joined(terms: list[str | None]) -> str | None:
    """Return the one term that is stated, or those that contradict each other."""
    return "/".join(sorted({term for term in terms if term})) or None


def _lenient(read: Callable[[], Read], otherwise: Read) -> Read:
    """Return what is read; what cannot be read states nothing."""
    try:
        return read()
    except ImageError:
        return otherwise
