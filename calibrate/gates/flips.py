"""Decisions that change sides of a threshold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.comparison_report import Flips
from promptray.calibrate.gates.data import Floats, GateData
from promptray.calibrate.rate import independent_decisions, rate_interval


def reference_threshold(logits: Floats, rate: float) -> float:
    """Return the operating point where none is stored: about this share of the images is flagged.

    It lies midway between the lowest flagged logit and the highest one below. On an image's own logit, the
    last bit of that image would decide, and rounding alone would flip it.

    Parameters
    ----------
    logits : ndarray of float64, shape (n,)
        The original's, of one finding.
    rate : float
        Share of the images, 0 to 1.
    """
    levels = np.unique(logits)
    lowest = np.quantile(logits, 1 - rate, method="higher")
    place = int(np.searchsorted(levels, lowest))
    return float(levels[place] if place == 0 else (levels[place - 1] + levels[place]) / 2)


class FlipCounts:
    """Both models' decisions at the same thresholds, for every finding.

    Parameters
    ----------
    data : GateData
    rate : float
        Of the reference operating point.
    confidence : float
        Of the intervals.
    """

    def __init__(self, data: GateData, rate: float, confidence: float) -> None:
        original = np.asarray(data.original.logits, np.float64)
        self.stored = [key in data.thresholds for key in data.findings]
        self.thresholds = np.array(
            [
                data.thresholds[key] if key in data.thresholds else reference_threshold(original[:, n], rate)
                for n, key in enumerate(data.findings)
            ]
        )
        self._flagged = original >= self.thresholds
        self._confidence = confidence
        self._independent = independent_decisions(data.patient_of)

    def changed(self, logits: NDArray[np.floating]) -> NDArray[np.bool_]:
        """Return which decisions (n, k) are others with these logits (n, k)."""
        flips: NDArray[np.bool_] = self._flagged != (np.asarray(logits, np.float64) >= self.thresholds)
        return flips

    def count(self, changed: NDArray[np.bool_], finding: int | None = None) -> Flips:
        """Count changed decisions of one finding, or of all, with the Clopper-Pearson interval."""
        own = changed if finding is None else changed[:, finding]
        rate, low, high = rate_interval(int(own.sum()), own.size, self._independent, self._confidence)
        stored = all(self.stored) if finding is None else self.stored[finding]
        return Flips(
            flips=int(own.sum()),
            decisions=own.size,
            patients=self._independent,
            rate=rate,
            low=low,
            high=high,
            threshold=None if finding is None else float(self.thresholds[finding]),
            chosen="stored" if stored else "reference operating point",
        )
