"""From logits to scores, by the way a head's findings hang together."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.bundle.manifest import ALTERNATIVES, Head
from promptray.runtime.result import Score, Summary


def scores_of(logits: NDArray[np.float32], keys: Sequence[str], head: Head) -> list[Score]:
    """Return the scores of one image.

    Parameters
    ----------
    logits : float32 array, (findings,)
    keys : sequence of str
        The findings' keys.
    head : Head
        Its relation and activation. ``exclusive`` and ``ordinal``: softmax over all findings. ``pair``: the
        logit is the difference of the finding's and its negative's, so softmax over the two is its logistic
        function.
        ``independent``: the logistic function of each where the activation is ``sigmoid``.

    Returns
    -------
    list of Score
        `softmax` is None where there is no alternative: independent findings, or a single one of a set.
    """
    wide = logits.astype(np.float64)
    if head.relation == "pair":
        return [
            Score(logit=float(logit), softmax=_logistic(value), among=[key, f"not {key}"])
            for logit, value, key in zip(logits, wide, keys, strict=True)
        ]
    if head.relation in ALTERNATIVES and len(keys) > 1:
        powers = np.exp(wide - wide.max())
        shares = powers / powers.sum()
        return [
            Score(logit=float(logit), softmax=float(share), among=list(keys))
            for logit, share in zip(logits, shares, strict=True)
        ]
    if head.activation == "sigmoid":
        return [
            Score(logit=float(logit), sigmoid=_logistic(value))
            for logit, value in zip(logits, wide, strict=True)
        ]
    return [Score(logit=float(logit)) for logit in logits]


def summary_of(scores: Mapping[str, Score], head: Head) -> Summary | None:
    """Return what the scores of alternatives say together; None for findings that are no alternatives.

    Parameters
    ----------
    scores : mapping of str to Score
        By key, in the order of the findings, which is the scale of an ordinal head. A group with a finding
        that is not among them gets no share.
    head : Head
    """
    return summary_of_shares(
        {key: score.softmax for key, score in scores.items() if score.softmax is not None}, head
    )


def summary_of_shares(shares: Mapping[str, float], head: Head) -> Summary | None:
    """Return what shares of alternatives say together, as :func:`summary_of` does."""
    if not shares or (head.relation != "exclusive" and head.relation != "ordinal"):
        return None
    ranks = range(1, len(shares) + 1)
    return Summary(
        head=head.name,
        relation=head.relation,
        most_likely=max(shares, key=lambda key: shares[key]),
        expected_rank=(
            sum(rank * share for rank, share in zip(ranks, shares.values(), strict=True))
            if head.relation == "ordinal"
            else None
        ),
        groups={
            name: sum(shares[key] for key in members)
            for name, members in head.groups.items()
            if name not in incomplete_groups(head, shares)
        },
    )


def incomplete_groups(head: Head, keys: Collection[str]) -> list[str]:
    """Return the groups of which a finding is not scored: what is left of one is not what its name says."""
    return [name for name, members in head.groups.items() if not all(key in keys for key in members)]


def _logistic(value: float) -> float:
    """Return 1 / (1 + exp(-value)) without overflow."""
    small = float(np.exp(-abs(value)))
    return (1.0 if value >= 0 else small) / (1.0 + small)
