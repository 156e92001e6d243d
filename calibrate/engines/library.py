"""What compiles and runs engines on this machine: TensorRT, TensorRT-RTX or ONNX Runtime's CUDA provider."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from promptray.runtime.backends.choice import OpenedEngines
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.manifest import Graph
from promptray.runtime.engines.facts import Device, EngineBackend, EngineFacts
from promptray.runtime.engines.plans import plan_name
from promptray.runtime.engines.settings import Settings
from promptray.runtime.graphs import Graphs
from promptray.runtime.prepare_graph import PrepareFacts

#: Called with (phase, fraction of it) while a graph is compiled.
Told = Callable[[str, float], None]


@dataclass(frozen=True, eq=False)
class Candidate:
    """A set of engines that was compiled and has not passed its gate.

    Attributes
    ----------
    facts : EngineFacts
    plans : mapping of str to bytes
        By `plan_name`; empty where the library keeps none.
    """

    facts: EngineFacts
    plans: Mapping[str, bytes | memoryview]

    def plan(self, role: str, head: str | None = None) -> bytes | memoryview:
        """Return the plan of a graph."""
        return self.plans[plan_name(role, head)]


class Library(Protocol):
    """Compiles engines for one device, and runs them there.

    Attributes
    ----------
    backend : str
    version : str
    device : Device
    keeps_plans : bool
        False where graphs are compiled whenever they are opened, and what is stored is only the gate.
    """

    backend: EngineBackend
    version: str
    device: Device
    keeps_plans: bool

    def compile(
        self,
        bundle: Bundle,
        graph: Graph | PrepareFacts,
        settings: Settings,
        told: Told,
        cancelled: threading.Event,
    ) -> bytes:
        """Return the plan of one graph of a bundle.

        Raises
        ------
        BuildError
            ``engine.*``.
        """
        ...

    def opened(self, bundle: Bundle, engines: OpenedEngines) -> AbstractContextManager[Graphs]:
        """Give the bundle's graphs as these engines run them, and the device's memory back at the end.

        Raises
        ------
        ScoringError
            ``backend.*``.
        """
        ...
