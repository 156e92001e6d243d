"""Plans that travel in the bundle, built ahead of time: they need a gate on this device, and no build."""

from __future__ import annotations

from collections.abc import Sequence

from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.engines import EngineSource
from promptray.runtime.engines.facts import Device
from promptray.runtime.engines.plans import plan_name
from promptray.runtime.engines.settings import Settings


def ready_made(
    bundle: Bundle,
    backend: str,
    version: str,
    device: Device,
    graphs: Sequence[EngineSource],
    settings: Settings,
) -> dict[str, bytes] | None:
    """Return the plans of a whole set for this device, or None where the bundle carries none.

    Raises
    ------
    BundleError
        ``bundle.hash``.
    """
    engines = bundle.manifest.engines
    if engines is None or engines.settings != settings:
        return None
    usable = {
        plan.source: plan.file
        for plan in engines.plans
        if (plan.flavour, plan.version) == (backend, version) and device.compute_capability in plan.targets
    }
    if not all(graph.file in usable for graph in graphs):
        return None
    return {plan_name(graph.role, graph.head): bundle.read(usable[graph.file]) for graph in graphs}
