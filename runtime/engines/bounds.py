"""How far a set of engines may be off when it is gated: the rule that builder and reader share."""

from __future__ import annotations

from collections.abc import Sequence

from promptray.runtime.bundle.manifest import Head
from promptray.runtime.bundle.validate import LARGEST_TOLERANCE
from promptray.runtime.engines.facts import SourceGraph

#: An engine in true fp32 sums in another order, on another processor: over the tolerance on one processor.
FACTOR = 10.0
#: Grey levels that pixels prepared on a device may be off: one, and what float32 adds to it.
MOST_LEVELS = 1.001


def is_exact(graphs: Sequence[SourceGraph]) -> bool:
    """Whether every graph of a set is fp32, so that only the order of sums differs from the original."""
    return all(graph.precision == "fp32" for graph in graphs)


def score_bound(head: Head, widest: float, *, exact: bool) -> float:
    """Return how far scores of a head may be off the original's.

    Parameters
    ----------
    head : Head
    widest : float
        What still tells the golden scores of every finding apart: the bound of narrower types.
    exact : bool
        See :func:`is_exact`.
    """
    return FACTOR * head.score_tolerance if exact else widest


def map_bound(head: Head, *, exact: bool) -> float | None:
    """Return how far maps of a head may be off the original's; None for a head without maps."""
    if head.map is None:
        return None
    return FACTOR * head.map.tolerance if exact else LARGEST_TOLERANCE
