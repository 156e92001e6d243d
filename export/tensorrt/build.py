"""Build an engine of an ONNX graph."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

from promptray.export.tensorrt.flavour import Flavour
from promptray.export.tensorrt.layers import Layer
from promptray.export.tensorrt.messages import Request
from promptray.export.tensorrt.model import read_model, require_readable
from promptray.export.tensorrt.process import Progress, build_in_process
from promptray.export.tensorrt.profiles import Profile
from promptray.runtime.engines.settings import Settings
from promptray.runtime.errors import BuildError

#: Along a dimension; older TensorRT counts in 32 bits.
_MOST = (1 << 31) - 1


@dataclass(frozen=True, eq=False)
class Built:
    """An engine.

    Attributes
    ----------
    plan : bytes
        What the library loads.
    layers : list of Layer
        After fusion; empty where the library does not list them (TensorRT other than RTX: inspect the plan).
    flavour, version : str
        Of the library that built it, and that alone loads it.
    targets : tuple of str
        Compute capabilities that it was built for, all accepted by the builder; empty: the GPU that is here.
    seconds : float
        Of parsing and building.
    timing_cache : bytes or None
        Makes the next build on this device quicker; None where the library measures nothing (RTX).
    """

    plan: bytes
    layers: list[Layer]
    flavour: str
    version: str
    targets: tuple[str, ...]
    seconds: float
    timing_cache: bytes | None


def build_engine(
    content: bytes,
    profiles: Sequence[Profile],
    settings: Settings,
    flavour: Flavour,
    *,
    targets: Sequence[str] = (),
    timing_cache: bytes | None = None,
    progress: Progress | None = None,
    cancelled: threading.Event | None = None,
) -> Built:
    """Compile an ONNX graph.

    An engine computes in its graph's types: TF32 is off.

    Parameters
    ----------
    content : bytes
        ONNX, typed as the engine is to compute, its weights inside.
    profiles : sequence of Profile
        See :func:`promptray.export.tensorrt.profiles_for`.
    settings : Settings
        Of which the workspace limit is used here.
    flavour : Flavour
        From :func:`promptray.export.tensorrt.load_flavour`.
    targets : sequence of str
        Compute capabilities to build for, for example ``"8.6"``: of TensorRT-RTX, which must have some.
        TensorRT builds for the GPU that it runs on and takes none.
    timing_cache : bytes, optional
        Of an earlier build on this device.
    progress : callable, optional
        Called in this thread with the name of TensorRT's phase and the share of steps done, which never
        falls. It is no share of time: one step may take most of it.
    cancelled : threading.Event, optional
        Once set, the build ends within a second and leaves nothing. So does Ctrl-C.

    Returns
    -------
    Built

    Raises
    ------
    BuildError
        ``engine.build-failed``, ``engine.target``, ``engine.unavailable`` or ``engine.cancelled``.
    """
    model = read_model(content)
    require_readable(model, flavour)
    _require_targets(flavour, targets)
    _require_sizes(flavour, profiles)
    request = Request(
        flavour=flavour.name,
        profiles=list(profiles),
        targets=list(targets),
        workspace_bytes=settings.workspace_bytes,
        types=sorted(model.types),
        content_bytes=len(content),
        timing_cache_bytes=None if timing_cache is None else len(timing_cache),
    )
    finished, plan, cache = build_in_process(request, content, timing_cache or b"", progress, cancelled)
    return Built(
        plan=plan,
        layers=finished.layers,
        flavour=flavour.name,
        version=flavour.version,
        targets=tuple(finished.targets),
        seconds=finished.seconds,
        timing_cache=cache,
    )


def _require_sizes(flavour: Flavour, profiles: Sequence[Profile]) -> None:
    for profile in profiles:
        for name, (_, _, most) in profile.shapes.items():
            if max(most, default=0) > _MOST:
                raise BuildError(
                    "engine.build-failed",
                    f"the engine would take more than {flavour.title} counts",
                    artefact=f"input {name}",
                    expected=f"at most {_MOST} along a dimension",
                    found=str(max(most)),
                    cure="choose smaller sizes in the recipe's section `tensorrt`, and build again",
                )


def _require_targets(flavour: Flavour, targets: Sequence[str]) -> None:
    if flavour.ahead_of_time and not targets:
        what, expected = "TensorRT-RTX builds for named GPUs", "compute capabilities, for example 8.6"
    elif targets and not flavour.ahead_of_time:
        what, expected = "TensorRT builds for the GPU that it runs on, and for no other", "no targets"
    else:
        return
    raise BuildError(
        "engine.target", what, artefact=flavour.title, expected=expected, found=", ".join(targets) or "none"
    )
