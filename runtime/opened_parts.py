"""What an open scorer is made of: a checked bundle on the backend that was chosen, with a site's findings."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import get_args

from promptray.runtime.active_prompts import ActivePrompts
from promptray.runtime.backend_facts import backend_facts, reduced_facts
from promptray.runtime.backends import Backend, BackendFacts, GpuOptions
from promptray.runtime.backends.choice import choose_backend
from promptray.runtime.backends.host_settings import HostSettings
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.parity import read_parity
from promptray.runtime.decode_gate import find_gate, require_gate
from promptray.runtime.engines.store import EngineStore
from promptray.runtime.golden import check_golden
from promptray.runtime.graphs import REPRODUCIBLE_PROMPTS, Graphs, own_bank
from promptray.runtime.image_preparation import ImagePreparation, Where
from promptray.runtime.reduction import MOST_HALVINGS
from promptray.runtime.site import Site
from promptray.runtime.site_calibration import Calibrations
from promptray.runtime.site_choice import USER_SITE, SiteChoice, open_site
from promptray.runtime.tuning import read_tuning


@dataclass(frozen=True, eq=False)
class Parts:
    """Everything that :class:`promptray.Scorer` uses.

    Attributes
    ----------
    bundle : Bundle
    graphs : Graphs
        The bundle's graphs on the backend; they gave the golden answers.
    prompts : ActivePrompts
        The bundle's findings and the site's.
    backend : BackendFacts
        For results.
    strict : bool
        Whether an image is refused whose tags are absent.
    closed : threading.Event
        Set when the scorer is closed.
    preparing : ImagePreparation
    """

    bundle: Bundle
    graphs: Graphs
    prompts: ActivePrompts
    backend: BackendFacts
    strict: bool
    closed: threading.Event
    preparing: ImagePreparation


def open_parts(
    path: str | os.PathLike[str],
    *,
    backend: str = "auto",
    site: SiteChoice = USER_SITE,
    threads: int | None = None,
    reproducible: bool = False,
    strict: bool = False,
    gpu: GpuOptions | None = None,
    prepare: Where = "cpu",
    reduced_decode: bool = False,
    host: HostSettings | None = None,
    measured: bool = False,
) -> Parts:
    """Open a bundle as :meth:`promptray.Scorer.open` says; errors and parameters are described there.

    With `measured` a lower resolution needs no gate: only the gate itself asks for that, and
    :func:`promptray.runtime.measured_scorer.open_measured`.
    """
    if prepare not in get_args(Where):
        raise ValueError('prepare must be "cpu" or "device"')
    if reduced_decode and prepare == "device":
        raise ValueError("reduced_decode is of images that the CPU prepares")
    bundle = Bundle.open(path)
    if bundle.manifest.gated:  # before anything runs: changed graphs that did not pass are not used
        read_parity(bundle)
    local = open_site(site, bundle.hash)
    chosen, reason = site_backend(
        backend, bundle, local, threads=threads, gpu=gpu, prepares=prepare == "device", host=host,
        reproducible=reproducible,
    )  # fmt: skip
    try:
        facts, halvings = backend_facts(bundle.manifest, chosen, reason, prepare), 0
        if reduced_decode:  # before graphs are compiled: without a gate nothing is loaded
            gate = (find_gate if measured else require_gate)(local, bundle, facts)
            facts = reduced_facts(facts, None if gate is None else gate.ref)
            halvings = MOST_HALVINGS if gate is None else gate.halvings
        graphs = Graphs(
            bundle,
            chosen,
            prompts_per_batch=REPRODUCIBLE_PROMPTS if reproducible else None,
            prepare=prepare == "device",
        )
        return _checked(bundle, chosen, graphs, facts, local, strict=strict, most_halvings=halvings)
    except BaseException:
        chosen.close()
        raise


def site_backend(
    name: str,
    bundle: Bundle,
    local: Site | None,
    *,
    threads: int | None,
    gpu: GpuOptions | None,
    prepares: bool,
    host: HostSettings | None = None,
    reproducible: bool = False,
) -> tuple[Backend, str]:
    """Open the backend that scores a bundle with a site's engines and times, and say why it is this one.

    Parameters and errors are those of :func:`promptray.runtime.backends.choice.choose_backend`.
    """
    return choose_backend(
        name,
        threads=threads,
        manifest=bundle.manifest,
        engines=EngineStore(local, bundle.manifest),
        options=gpu,
        prepares=prepares,
        host=host,
        tuning=read_tuning(local) if name == "auto" else None,
        reproducible=reproducible,
    )


def _checked(
    bundle: Bundle,
    backend: Backend,
    graphs: Graphs,
    facts: BackendFacts,
    local: Site | None,
    *,
    strict: bool,
    most_halvings: int,
) -> Parts:
    """Warm up by the golden check: the first call is paid once, and a broken install is found at once."""
    banks = {head.name: own_bank(bundle, head) for head in bundle.manifest.heads}
    check_golden(bundle, graphs, graphs.bind_all(banks), pictures=1)
    require_device_prepares(bundle, graphs)
    preparing = ImagePreparation(
        bundle.manifest.preprocessing,
        backend.engines if graphs.preparing else None,
        most_halvings=most_halvings,
    )
    closed = threading.Event()
    calibrations = Calibrations(local, bundle.manifest, facts, strict=strict)
    prompts = ActivePrompts(bundle, graphs, banks, local, closed, calibrations)
    return Parts(bundle, graphs, prompts, facts, strict, closed, preparing)


def require_device_prepares(bundle: Bundle, graphs: Graphs, *, whole: bool = False) -> float | None:
    """Hold what the device prepares against what the CPU prepares, where the device does.

    Parameters
    ----------
    bundle : Bundle
    graphs : Graphs
    whole : bool
        All golden images, not the first alone.

    Returns
    -------
    float or None
        The largest difference in grey levels; None where the CPU prepares images.

    Raises
    ------
    BundleError
        ``bundle.golden``.
    """
    if graphs.preparing is None:
        return None
    from promptray.runtime.golden_prepare import require_prepared  # takes time that others save

    return require_prepared(bundle, graphs, whole=whole)
