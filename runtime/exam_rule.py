"""The rule by which the images of an examination become its scores: what it must say, and how it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from promptray.runtime.bundle.manifest import Examination, Head
from promptray.runtime.views import SIDES, VIEW_CODES, View, parse_view

#: What of a score is pooled.
Pooled = Literal["softmax", "sigmoid", "logit"]


class RuleFault(NamedTuple):
    """What is wrong with a rule: the field, what it does, what would be right, what is there."""

    field: str
    what: str
    expected: str
    found: str


def rule_fault(rule: Examination, heads: Sequence[Head]) -> RuleFault | None:
    """Return what the schema cannot say against a rule; None where it means one thing.

    Parameters
    ----------
    rule : Examination
    heads : sequence of Head
        All of them follow the rule.
    """
    for number, label in enumerate(rule.views):
        view = parse_view(label)
        if view is None or view.label != label:
            terms = f"one of {', '.join(VIEW_CODES)}, behind {' or '.join(SIDES)} where the organ is paired"
            return RuleFault(f"views[{number}]", "is no view that tags can state", terms, label)
    views = views_of(rule)
    if len(set(views)) != len(views):
        return RuleFault("views", "names a view twice", "each view once", ", ".join(rule.views))
    if len({view.side is None for view in views}) != 1:
        expected = "a side for every view, or for none"
        return RuleFault("views", "gives some views a side and some none", expected, ", ".join(rule.views))
    if views[0].side is None and rule.over_sides != "none":
        return RuleFault("over_sides", "pools sides, and the views have none", "none", rule.over_sides)
    for head in heads:
        for field in ("over_views", "over_sides"):
            if head.relation == "exclusive" and getattr(rule, field) == "max":
                what = "takes the greatest of alternatives that have no order"
                return RuleFault(field, what, "mean, or relation ordinal", "max")
    return None


def views_of(rule: Examination) -> list[View]:
    """Return the views of a rule without fault, in its order."""
    return [view for view in map(parse_view, rule.views) if view is not None]


def pooled_of(head: Head) -> Pooled:
    """Return what of a head's scores is pooled: the number that is comparable from image to image.

    Of alternatives, and of a finding against its negative, the share of the softmax: the model was trained
    to give shares, and a logit of it means nothing without the others'. Of findings that the model was
    trained to say yes or no to, the sigmoid. Else the logit, the only number there is.
    """
    if head.relation != "independent":
        return "softmax"
    return "sigmoid" if head.activation == "sigmoid" else "logit"


def in_words(rule: Examination, heads: Sequence[Head]) -> list[str]:
    """Return the rule as sentences for people."""
    needed = "All are needed." if rule.require_all else "Missing ones are reported."
    sentences = [f"Views: {', '.join(rule.views)}. {needed}", "Images of one view: their mean."]
    sided = views_of(rule)[0].side is not None
    for head in heads:
        name = f" ({head.name})" if len(heads) > 1 else ""
        of = f"views of one side{name}" if sided else f"views{name}"
        sentences.append(f"{of.capitalize()}: {_how(rule.over_views, head)}.")
        if sided:
            sentences.append(f"Sides{name}: {_how(rule.over_sides, head)}.")
    return sentences


def _how(how: str, head: Head) -> str:
    if how == "none":
        return "kept apart"
    if how == "max" and head.relation == "ordinal":
        return "the one of the greatest expected rank"
    return f"{'mean' if how == 'mean' else 'greatest'} {pooled_of(head)} of each finding"
