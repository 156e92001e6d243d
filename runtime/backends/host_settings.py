"""How a backend of the processor runs graphs: what `promptray tune` may choose beside its threads."""

from __future__ import annotations

from typing import Literal

import msgspec

Optimisation = Literal["all", "extended", "basic"]
Hint = Literal["latency", "throughput"]


class HostSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of a backend of the processor; the defaults are those that every graph is gated with.

    Attributes
    ----------
    arena : bool
        ONNX Runtime: keep memory between calls, instead of giving it back to the system.
    optimisation : {"all", "extended", "basic"}
        ONNX Runtime: how far graphs are rewritten when they are loaded.
    hint : {"latency", "throughput"}
        OpenVINO: all threads on one call, or several calls side by side.
    """

    arena: bool = True
    optimisation: Optimisation = "all"
    hint: Hint = "latency"


#: Those that graphs are gated with.
GATED = HostSettings()
