"""Which magnitude becomes the greatest integer: what lies above is clipped, what lies below gets finer steps.

Each rule takes the :class:`Magnitudes` of a tensor and returns a threshold, at most the greatest magnitude
seen.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.quantise.histogram import BINS, Magnitudes
from promptray.calibrate.quantise.scheme import Calibration

#: Greatest integer of symmetric int8.
LEVELS = 127
_PERCENTILE = 99.99
_CANDIDATES = range(LEVELS + 1, BINS + 1, 16)


def threshold_of(seen: Magnitudes, rule: Calibration) -> float:
    """Return the threshold that a rule chooses; 0 for a tensor that is always zero."""
    return min(_RULES[rule](seen), seen.greatest) if seen.greatest else 0.0


def _greatest(seen: Magnitudes) -> float:
    return seen.greatest


def _percentile(seen: Magnitudes) -> float:
    """Return the edge below which 99.99 % of the magnitudes lie."""
    below = np.cumsum(seen.counts) / seen.counts.sum()
    return float(seen.edges[np.searchsorted(below, _PERCENTILE / 100)])


def _mean_squared_error(seen: Magnitudes) -> float:
    """Return the edge that loses least to rounding and clipping together, in squares."""

    def loss(threshold: float) -> float:
        step = threshold / LEVELS
        rounded = np.clip(np.round(seen.centres / step), 0, LEVELS) * step
        return float((seen.counts * (seen.centres - rounded) ** 2).sum())

    candidates = [float(seen.edges[count - 1]) for count in _CANDIDATES]
    return min(candidates, key=loss)


def _entropy(seen: Magnitudes) -> float:
    """Return the edge whose 128 levels keep most of the distribution (Migacz, GTC 2017, S7310).

    The least Kullback-Leibler divergence between the histogram, clipped values heaped onto its last bin, and
    the same histogram told in 128 levels. The first bin counts as its neighbour: zeros are exact at any
    scale, and the many zeros that ReLU and GELU leave would drown what is being compared.
    """
    counts = seen.counts.astype(np.float64)
    counts[0] = counts[1]
    if not counts.any():
        return seen.greatest
    return float(seen.edges[min(_CANDIDATES, key=lambda kept: _divergence(counts, kept)) - 1])


def _divergence(counts: NDArray[np.float64], kept: int) -> float:
    clipped = counts[:kept].copy()
    filled = clipped > 0
    level = np.arange(kept) * (LEVELS + 1) // kept
    totals = np.bincount(level, clipped, LEVELS + 1)
    shares = np.bincount(level, filled, LEVELS + 1)
    told = np.where(filled, (totals / np.maximum(shares, 1))[level], 0.0)
    clipped[-1] += counts[kept:].sum()
    told_sum = told.sum()
    if not told_sum:
        return np.inf
    p, q = clipped / clipped.sum(), told / told_sum
    both = p > 0
    return float((p[both] * np.log(p[both] / np.maximum(q[both], 1e-12))).sum())


_RULES: dict[Calibration, Callable[[Magnitudes], float]] = {
    "max": _greatest,
    "percentile": _percentile,
    "mse": _mean_squared_error,
    "entropy": _entropy,
}
