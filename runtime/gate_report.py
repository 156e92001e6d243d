"""A report of the gates as a reader holds it to account: what it states must be inside its kind's bounds.

Nothing here can tell that the numbers were measured. But a gate that is missing, a bound that is wider than
this software's own, and a number beyond its bound are found, whoever wrote them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Literal, NamedTuple

import msgspec

from promptray.runtime.bundle.fields import Sha256
from promptray.runtime.gate_limits import AT_LEAST, CONFIDENCE, LIMITS, Kind

_LARGEST = ("max_delta", "batch_delta")
_OF_MAPS = ("map_correlation", "map_overlap")
#: Not held where no image has a label, which the report says.
_OF_LABELS = ("auroc_loss", "class_auroc_loss")


class StatedModel(msgspec.Struct, frozen=True):
    """What the reports call the model they judged."""

    sha256: Sha256


class StatedGate(msgspec.Struct, frozen=True):
    """One gate of a report: which number, and how far it may go."""

    name: str
    verdict: str
    value: float | None
    low: float | None
    high: float | None
    bound: float

    @property
    def worst(self) -> float | None:
        """The end of the interval that must be inside the bound; a largest difference has no interval."""
        if self.name in _LARGEST:
            return self.value
        return self.low if self.name in AT_LEAST else self.high


class StatedNotRun(msgspec.Struct, frozen=True):
    """A gate that a report did not hold."""

    name: str


class StatedReport(msgspec.Struct, frozen=True):
    """What a reader looks at of a gate's whole report."""

    schema: Literal["promptray-gates"]
    schema_version: Literal[1]
    verdict: str
    images: int
    patients: int
    labelled: bool
    confidence: float
    candidate: StatedModel
    gates: list[StatedGate]
    not_run: list[StatedNotRun]


class GateFault(NamedTuple):
    """What a report says and no gate that was passed could."""

    what: str
    expected: str
    found: str


def gate_faults(report: StatedReport, kind: Kind, *, maps: bool) -> Iterator[GateFault]:
    """Hold a report against the bounds of a kind of change.

    Parameters
    ----------
    report : StatedReport
    kind : Kind
        Whose bounds count.
    maps : bool
        Whether the head has maps, so that their gates must be there.

    Yields
    ------
    GateFault
    """
    if report.confidence < CONFIDENCE:
        yield GateFault("confidence", f"at least {CONFIDENCE:g}", f"{report.confidence:g}")
    limits = asdict(LIMITS[kind])
    must = {name for name, limit in limits.items() if limit is not None}
    if not maps:
        must.difference_update(_OF_MAPS)
    if report.labelled != any(gate.name in _OF_LABELS for gate in report.gates):
        yield GateFault("whether a gate saw labels", "its gates of AUROC", str(report.labelled))
    left_out = {gate.name for gate in report.not_run} & {*_OF_LABELS}
    if missing := sorted(must - {gate.name for gate in report.gates} - left_out):
        yield GateFault("gates that were held", ", ".join(sorted(must)), f"no {missing[0]}")
    for gate in report.gates:
        yield from _faults_of(gate, limits.get(gate.name), kind)


def _faults_of(gate: StatedGate, limit: float | None, kind: Kind) -> Iterator[GateFault]:
    """A gate's bound is that of its kind or a tighter one, and the number was inside."""
    sign = -1 if gate.name in AT_LEAST else 1
    if limit is None or not sign * gate.bound <= sign * limit:
        expected = f"{gate.name} {limit:g} or tighter" if limit is not None else f"no {gate.name}"
        yield GateFault(f"a bound for {kind}", expected, f"{gate.bound:g}")
    if gate.verdict != "passed" or gate.worst is None or not sign * gate.worst <= sign * gate.bound:
        yield GateFault("a gate that was not passed", f"{gate.name} within {gate.bound:g}", gate.verdict)
