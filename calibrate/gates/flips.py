"""Decisions that change sides of a threshold."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.comparison_report import Flips
from promptray.calibrate.gates.data import GateData
from promptray.calibrate.rate import independent_decisions, rate_interval
from promptray.calibrate.reference_threshold import reference_threshold

#: Patients that a stored threshold must leave on either side; a tenth of the 30 that other gates ask for lies
#: beyond the reference operating point.
LEAST_ASIDE = 3


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
        #: Findings whose stored threshold hardly parts the original's scores: no decision could change there.
        self.aside = [
            stored and self._least_side(data, n) < LEAST_ASIDE for n, stored in enumerate(self.stored)
        ]
        self._confidence = confidence
        self._independent = independent_decisions(data.patient_of)

    def _least_side(self, data: GateData, finding: int) -> int:
        """Return the patients on the side of a finding's threshold that has fewer."""
        flagged = self._flagged[:, finding]
        return min(len(np.unique(data.patient_of[side])) for side in (flagged, ~flagged))

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
