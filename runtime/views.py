"""Names of views: the terms that DICOM tags can state, and labels made of them such as ``L CC``.

Terms of projection radiography are those of View Position (0018,5101, PS3.3 C.8.1.1 of CR and C.8.11.5 of
DX); terms of mammography are the labels of the American College of Radiology that stand beside the codes of
CID 4014 (PS3.16).
"""

from __future__ import annotations

from typing import NamedTuple

#: Term -> its SNOMED codes: the present one, then those of its predecessor (PS3.16 CID 4010 and CID 4014).
VIEW_CODES: dict[str, tuple[str, ...]] = {
    "CC": ("399162004", "R-10242"),  # cranio-caudal
    "MLO": ("399368009", "R-10226"),  # medio-lateral oblique
    "ML": ("399260004", "R-10224"),  # medio-lateral
    "LM": ("399352003", "R-10228"),  # latero-medial
    "LMO": ("399099002", "R-10230"),  # latero-medial oblique
    "FB": ("399196006", "R-10244"),  # caudo-cranial, "from below"
    "SIO": ("399188001", "R-102D0"),  # superolateral to inferomedial oblique
    "ISO": ("441555000", "R-40AAA"),  # inferomedial to superolateral oblique
    "XCCL": ("399192008", "R-1024A"),  # cranio-caudal exaggerated laterally
    "XCCM": ("399101009", "R-1024B"),  # cranio-caudal exaggerated medially
    "AP": ("399348003", "R-10206"),  # antero-posterior
    "PA": ("272479007", "R-10214", "R-40888"),  # postero-anterior
    "LL": ("399173006", "R-10236"),  # left lateral
    "RL": ("399198007", "R-10232"),  # right lateral
    # Lateral decubitus and lateral oblique: terms without a code of their own.
    **dict.fromkeys(("RLD", "LLD", "RLO", "LLO"), ()),
}
#: Sides of a paired organ as Image Laterality (0020,0062) names them.
SIDES = ("L", "R")


class View(NamedTuple):
    """What an image shows: a projection and, of a paired organ, a side."""

    side: str | None
    projection: str

    @property
    def label(self) -> str:
        """The view as people and rules write it.

        >>> View("L", "CC").label, View(None, "PA").label
        ('L CC', 'PA')
        """
        return self.projection if self.side is None else f"{self.side} {self.projection}"


def parse_view(label: str) -> View | None:
    """Return the view that a label names; None where it names none.

    Case does not matter, and a hyphen may stand for the space, as command lines like it.

    >>> parse_view("l-cc")
    View(side='L', projection='CC')
    >>> parse_view("LCC") is None
    True
    """
    words = label.upper().replace("-", " ").split()
    side = words.pop(0) if len(words) == 2 and words[0] in SIDES else None
    return View(side, words[0]) if len(words) == 1 and words[0] in VIEW_CODES else None
