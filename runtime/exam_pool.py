"""Pooling: from the scores of single images to those of a view, a side and the whole examination.

The mean of shares is the linear opinion pool (Stone 1961): a mean of distributions is one, and every image
counts alike whatever its scale of logits is; breast-level scores of mammograms are made like this of CC and
MLO views (Wu et al. 2020, IEEE TMI 39(4)). ``max`` of independent findings is the rule of multiple instances
(Dietterich et al. 1997): what one view shows is there, though another hides it. ``max`` of an ordinal head
takes one side or view whole, that of the greatest expected rank: BI-RADS (5th edition, breast composition)
has density read on the denser breast. Greatest shares taken one by one would not add up to 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from promptray.runtime.bundle.manifest import Examination, Head
from promptray.runtime.views import View


@dataclass(frozen=True)
class Part:
    """What one head says of an image, a view, a side or the examination.

    Attributes
    ----------
    values : dict of str to float
        By finding key, in the order of the findings: shares, sigmoids or logits.
    views : dict of str to tuple of View
        By finding key, the views that its value was made of.
    """

    values: dict[str, float]
    views: dict[str, tuple[View, ...]]


def pool(
    images: Mapping[View, Sequence[Mapping[str, float]]], rule: Examination, head: Head
) -> tuple[dict[str, Part], Part | None]:
    """Pool one head's values.

    Parameters
    ----------
    images : mapping of View to sequence of mappings of str to float
        Views that are there, in the rule's order, each with the values of its images, by finding key. At
        least one view, and at least one image of each.
    rule : Examination
    head : Head

    Returns
    -------
    sides : dict of str to Part
        By side; empty where the views have no side.
    examination : Part or None
        None where the rule keeps sides apart.
    """
    views = {view: _of_view(view, values) for view, values in images.items()}
    of_side: dict[str | None, list[Part]] = {}
    for view, part in views.items():
        of_side.setdefault(view.side, []).append(part)
    sides = {side: _pooled(parts, rule.over_views, head) for side, parts in of_side.items()}
    if None in sides:
        return {}, sides[None]
    named = {side: part for side, part in sides.items() if side is not None}
    if rule.over_sides == "none":
        return named, None
    return named, _pooled(list(named.values()), rule.over_sides, head)


def expected_rank(values: Mapping[str, float]) -> float:
    """Return the mean place on the scale, 1 for the first, weighted by shares."""
    return math.fsum(place * share for place, share in enumerate(values.values(), start=1))


def _of_view(view: View, images: Sequence[Mapping[str, float]]) -> Part:
    parts = [Part(dict(values), dict.fromkeys(values, (view,))) for values in images]
    # Two images of one view say the same thing twice, so whatever the rule is, neither counts more.
    return Part(_mean(parts).values, parts[0].views)


def _pooled(parts: Sequence[Part], how: str, head: Head) -> Part:
    if how == "mean":
        return _mean(parts)
    if head.relation == "ordinal":
        return max(parts, key=lambda part: expected_rank(part.values))
    largest = {key: _largest(parts, key) for key in parts[0].values}
    return Part(
        {key: part.values[key] for key, part in largest.items()},
        {key: part.views[key] for key, part in largest.items()},
    )


def _largest(parts: Sequence[Part], key: str) -> Part:
    return max(parts, key=lambda part: part.values[key])


def _mean(parts: Sequence[Part]) -> Part:
    """Return the mean; it does not depend on the order of the parts, since fsum rounds once."""
    keys = parts[0].values
    return Part(
        {key: math.fsum(part.values[key] for part in parts) / len(parts) for key in keys},
        {key: tuple(view for part in parts for view in part.views[key]) for key in keys},
    )
