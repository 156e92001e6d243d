"""Which view of an examination an image is: by its tags, or by the caller's word where no tag speaks."""

from __future__ import annotations

from typing import Literal, NamedTuple

from promptray.runtime.bundle.manifest import Examination
from promptray.runtime.errors import ImageError
from promptray.runtime.exam_rule import views_of
from promptray.runtime.picture import SourceFacts
from promptray.runtime.views import SIDES, VIEW_CODES, View, parse_view


class Assigned(NamedTuple):
    """The view of an image, and whether it enters.

    Attributes
    ----------
    label : str or None
        As far as it is known.
    view : View or None
        One of the rule's, for an image that enters.
    declared : bool
        Whether the caller had to say something of it that no tag says.
    code : str or None
        Key of ``exam_result.LEFT_OUT``, for an image that does not.
    """

    label: str | None
    view: View | None = None
    declared: bool = False
    code: Literal["view-unknown", "view-contradictory", "view-modified", "view-not-expected"] | None = None


def declared_view(label: str, rule: Examination) -> View:
    """Return the view that a caller declares.

    Raises
    ------
    ImageError
        ``exam.view`` for a label that names no view of the kind that the rule has.
    """
    view = parse_view(label) if isinstance(label, str) else None
    sided = views_of(rule)[0].side is not None
    if view is None or (view.side is not None) != sided:
        form = f"{' or '.join(SIDES)}, then one" if sided else "one"
        raise ImageError(
            "exam.view",
            "a declared view is none of the kind that the bundle's rule has",
            expected=f"{form} of {', '.join(VIEW_CODES)}; the rule has {', '.join(rule.views)}",
            found=ascii(label)[:40],
        )
    return view


def assign(source: SourceFacts, declared: View | None, rule: Examination, name: str) -> Assigned:
    """Return which of the rule's views an image is, or why it does not enter.

    Parameters
    ----------
    source : SourceFacts
        What its tags say.
    declared : View or None
        What the caller says; it may stand in for absent tags, never overrule one.
    rule : Examination
    name : str
        What errors call the image.

    Raises
    ------
    ImageError
        ``exam.view`` where tags contradict what was declared.
    """
    views = views_of(rule)
    sided = views[0].side is not None
    projection, side = source.view, source.laterality if sided else None
    stated = " ".join(part for part in (side, projection) if part) or None
    spoken = False
    if declared is not None:
        if projection not in (None, declared.projection) or side not in (None, declared.side):
            raise ImageError(
                "exam.view",
                "the tags contradict the declared view",
                artefact=name,
                expected=declared.label,
                found=stated,
                cure="correct the declaration or the image's header",
            )
        spoken = projection is None or (sided and side is None)
        projection, side = declared.projection, declared.side
        stated = declared.label
    if projection is None or (sided and side is None):
        return Assigned(stated, code="view-unknown")
    if "/" in projection or "/" in (side or ""):
        return Assigned(stated, code="view-contradictory")
    if source.view_modifiers:
        return Assigned(f"{stated} ({', '.join(source.view_modifiers)})", code="view-modified")
    view = View(side, projection)
    if view not in views:
        return Assigned(stated, code="view-not-expected")
    return Assigned(stated, view, spoken)
