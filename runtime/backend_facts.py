"""What a result says of the backend that scored."""

from __future__ import annotations

from typing import Literal

import msgspec

from promptray.runtime.backends import HOST, Backend, BackendFacts, DecodeRef, EngineRef
from promptray.runtime.backends.host_settings import GATED
from promptray.runtime.bundle.manifest import Manifest
from promptray.runtime.engines.facts import EngineSet
from promptray.runtime.machine_class import consumers_here

#: Pixels prepared on the device may be a grey level off: calibrations on the CPU's are of other scores.
_PREPARED = ", images prepared on the device"
#: Likewise what is decoded at a lower resolution.
_REDUCED = ", JPEG 2000 decoded at a lower resolution"


def backend_facts(
    manifest: Manifest,
    backend: Backend,
    reason: str,
    prepare: Literal["cpu", "device"] = "cpu",
) -> BackendFacts:
    """Return what ran, where and why.

    Parameters
    ----------
    manifest : Manifest
    backend : Backend
        With engines that passed their gate, or of the host.
    reason : str
        Why it was chosen.
    prepare : {"cpu", "device"}
        Where images are prepared.
    """
    engines = backend.engines
    if engines is None:
        gated = manifest.gated_for(consumers_here(backend.name))
        gated_as = gated.consumer if gated is not None and gated.heads else None
        return BackendFacts(
            backend.name, backend.version, backend.device, _precision(manifest, backend.name),
            backend.threads, reason, gated_as,
            text=HOST if backend.name != HOST and manifest.graph("text") else None,
            settings=None if backend.settings == GATED else backend.settings,
        )  # fmt: skip
    if not isinstance(engines, EngineSet):
        raise TypeError("engines that passed no gate score nothing")
    gated_as = f"{backend.name}@{engines.key}" + (_PREPARED if prepare == "device" else "")
    return BackendFacts(
        backend.name, backend.version, backend.device, engines.precision, backend.threads, reason,
        gated_as, EngineRef(engines.key, engines.gate.title),
        HOST if manifest.graph("text") else None, prepare,
    )  # fmt: skip


def reduced_facts(facts: BackendFacts, gate: DecodeRef | None) -> BackendFacts:
    """Return the facts of a backend whose images are decoded no finer than the network needs.

    Parameters
    ----------
    facts : BackendFacts
        Of images that are decoded whole.
    gate : DecodeRef or None
        That was passed; None where this is only measured.
    """
    return msgspec.structs.replace(facts, gated_as=(facts.gated_as or facts.name) + _REDUCED, decode=gate)


def gated_consumer(facts: BackendFacts) -> str | None:
    """Return what the graphs were gated as, without what was done otherwise to images."""
    return None if facts.gated_as is None else facts.gated_as.partition(", ")[0]


def reduces_decode(facts: BackendFacts) -> bool:
    """Tell whether JPEG 2000 is decoded no finer than the network needs."""
    return (facts.gated_as or "").endswith(_REDUCED)


def _precision(manifest: Manifest, backend: str) -> str:
    """Name the precision of what runs: one word where image side and heads agree."""
    consumers = consumers_here(backend)
    used = [manifest.graph_for("image", consumers)]
    used += [manifest.graph_for("head", consumers, head.name) for head in manifest.heads]
    stated = {graph.title: graph.precision for graph in used if graph is not None}
    if len(set(stated.values())) == 1:
        return stated["image"]
    return ", ".join(f"{title} {precision}" for title, precision in stated.items())
