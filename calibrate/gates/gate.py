"""One gate: a measured number against its bound, or the worst of several findings' numbers."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.evaluation_report import Estimate
from promptray.calibrate.gates.report import Gate, GateName
from promptray.calibrate.gates.verdict import LEAST_PATIENTS, Sense, Verdict, patients_to_settle, verdict_of

_SEVERITY = ("passed", "inconclusive", "refused")
_BELOW_NOISE = "the bound is beyond the noise floor: the original does not hold it against itself"


@dataclass(frozen=True, eq=False)
class Measured:
    """A number to be judged, and what it rests on.

    Attributes
    ----------
    finding : str, optional
        None for a number over all findings.
    found : Estimate, optional
        None where it is not defined. Without ends it is a fact of these images, and judged as it is.
    noise : float, optional
        The same number between two builds of the original.
    patients : ndarray of int, shape (m,)
        Whose images the m decisions are about.
    images : int, optional
        Where images are decided on more than once.
    too_little : str, optional
        Why it rests on too little to be passed, whatever it is.
    needed : int, optional
        Patients that would be enough, where `too_little` is said.
    """

    finding: str | None
    found: Estimate | None
    noise: float | None
    patients: NDArray[np.int64]
    images: int | None = None
    too_little: str | None = None
    needed: int | None = None


def judged(name: GateName, bound: float, measured: Measured, sense: Sense = "at most") -> Gate:
    """Judge one number."""
    found, patients = measured.found, len(np.unique(measured.patients))
    too_little, needed = measured.too_little, measured.needed
    if too_little is None and patients < LEAST_PATIENTS:
        too_little, needed = f"{patients} patients; {LEAST_PATIENTS} are the least", LEAST_PATIENTS
    verdict: Verdict = "inconclusive"
    reason = too_little
    if found is not None:
        low, high = (found.value if end is None else end for end in (found.low, found.high))
        verdict = verdict_of(low, high, bound, sense)
        if verdict == "passed" and too_little:
            verdict = "inconclusive"
        elif verdict == "inconclusive" and not too_little:
            needed = patients_to_settle(found.value, low, high, bound, patients)
            reason = settles(needed, "patients", patients)
    if verdict != "inconclusive":
        needed = reason = None
    if verdict != "passed":
        reason = with_noise(reason, measured.noise, bound, sense)
    return Gate(
        name=name,
        verdict=verdict,
        value=None if found is None else found.value,
        low=None if found is None else found.low,
        high=None if found is None else found.high,
        bound=bound,
        sense=sense,
        noise_floor=measured.noise,
        finding=measured.finding,
        images=len(measured.patients) if measured.images is None else measured.images,
        patients=patients,
        decisions=len(measured.patients),
        patients_needed=needed,
        reason=reason,
    )


def worst(gates: Iterable[Gate]) -> Gate:
    """Return the gate that is furthest from passing: by verdict, then by value."""

    def badness(gate: Gate) -> tuple[int, float]:
        sign = 1 if gate.sense == "at most" else -1
        return _SEVERITY.index(gate.verdict), -math.inf if gate.value is None else sign * gate.value

    return max(gates, key=badness)


def with_noise(reason: str | None, noise: float | None, bound: float, sense: Sense = "at most") -> str | None:
    """Add to why a gate was not passed that the original itself would not pass it, where that is so."""
    if noise is None or verdict_of(noise, noise, bound, sense) == "passed":
        return reason
    return _BELOW_NOISE if reason is None else f"{reason}; {_BELOW_NOISE}"


def settles(needed: int | None, what: str, there: int) -> str:
    """Say how much data would decide."""
    if needed is None:
        return "too close to its bound for any number of patients to settle"
    return f"{needed} {what} would settle it if nothing else changes; there are {there}"
