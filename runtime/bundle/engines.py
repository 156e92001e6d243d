"""What a manifest says of engines: the graphs they are compiled from, and those that were compiled already.

A source of engines is no graph that a reader runs. It was never gated as it would run, since that depends on
the GPU and on the compiler: what is compiled from it is gated on the device, as one set.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from promptray.runtime.bundle.calibration_set import CalibrationSet
from promptray.runtime.bundle.fields import HeadName, Text
from promptray.runtime.engines.settings import Capability, Settings

#: What a source may be typed as, the highest first.
Precision = Literal["fp32", "fp16", "int8-qdq", "fp8-qdq"]
#: What stands in for a graph that the set's own precision leaves out.
_INSTEAD: tuple[Precision, ...] = ("fp16", "fp32")
#: Of TensorRT 10 and later; 8.6 reads 17.
NEWEST_OPSET, OLDEST_OPSET = 20, 17


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the structures: immutable, keyword-only, closed."""


class EngineSource(_Struct, frozen=True, kw_only=True):
    """An ONNX graph that engines are compiled from: same inputs and outputs as the role's graph that runs."""

    role: Literal["image", "head"]
    file: Text
    precision: Precision
    opset: Annotated[int, Meta(ge=OLDEST_OPSET, le=NEWEST_OPSET)]
    head: HeadName | None = None

    @property
    def title(self) -> str:
        """What people call it: its role, of a head with its name."""
        return self.role if self.head is None else f"{self.role} {self.head}"

    @property
    def stem(self) -> str:
        """Its file without the ending, as the format document has it."""
        folder = self.role if self.head is None else f"{self.role}/{self.head}"
        return f"engines/{folder}/{self.precision}-{self.opset}"


class EnginePlan(_Struct, frozen=True, kw_only=True):
    """An engine that was built ahead of time, for GPUs that it was built without."""

    file: Text
    flavour: Literal["tensorrt_rtx"]
    version: Text
    """Of the library that built it; another one does not load it."""
    targets: Annotated[list[Capability], Meta(min_length=1)]
    """Compute capabilities that the builder accepted."""
    source: Text
    """File of the graph that it was compiled from."""


class Engines(_Struct, frozen=True, kw_only=True):
    """The manifest's section ``engines``."""

    settings: Settings
    sources: list[EngineSource] = []
    calibration: CalibrationSet | None = None
    """The images that the sources' ranges were taken from; None where all are fp32."""
    plans: list[EnginePlan] = []
    prepare: Text | None = None
    """File of the graph that takes stored values to pixels on the device."""

    @property
    def files(self) -> list[str]:
        """Names of all its files."""
        named = [each.file for each in self.sources] + [each.file for each in self.plans]
        return named if self.prepare is None else [*named, self.prepare]


def pick(own: Sequence[EngineSource], precision: Precision, opset: int) -> EngineSource | None:
    """Return the source of one role that a set of a precision takes, or None.

    Parameters
    ----------
    own : sequence of EngineSource
        All of the role.
    precision : str
        The set's. A graph that has no source of it takes part as fp16, else as fp32; in an fp32 set all are.
    opset : int
        Newest that the compiler reads; of several the newest is taken.
    """
    wanted = (precision,) if precision == "fp32" else (precision, *_INSTEAD)
    readable = sorted((each for each in own if each.opset <= opset), key=lambda each: -each.opset)
    return next((each for name in wanted for each in readable if each.precision == name), None)
