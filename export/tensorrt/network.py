"""From an ONNX graph to an engine, in this process: the calls of TensorRT's Python API.

All of it is common to TensorRT 10.3, 10.16 and 11.4 and TensorRT-RTX 1.7; what differs for 8.6 is in
`promptray.export.tensorrt.flavour`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from promptray.export.tensorrt.flavour import Flavour, allow_types, capabilities, create_network, node_of
from promptray.export.tensorrt.layers import Layer, layers_of
from promptray.export.tensorrt.log import Log, one_line, open_log
from promptray.export.tensorrt.messages import Refused, Request
from promptray.export.tensorrt.profiles import Profile
from promptray.export.tensorrt.progress import Phases, open_monitor
from promptray.export.tensorrt.refusals import refusal


@dataclass(frozen=True)
class Compiled:
    """An engine (see `promptray.export.tensorrt.build.Built`)."""

    plan: bytes
    layers: list[Layer]
    targets: list[str]
    seconds: float
    timing_cache: bytes | None


def compile_network(
    trt: Any, flavour: Flavour, request: Request, content: bytes, timing_cache: bytes | None, phases: Phases
) -> Compiled | Refused:
    """Build an engine.

    Parameters
    ----------
    trt : module
        Of the flavour.
    request : Request
    content : bytes
        The ONNX graph.
    timing_cache : bytes or None
        Of an earlier build.
    phases : Phases
    """
    started = time.monotonic()
    log = open_log(trt)
    try:
        builder = trt.Builder(log)
    except TypeError:  # pybind's word for a builder that TensorRT would not make
        return Refused(
            code="engine.unavailable",
            message=f"{flavour.title} cannot build on this machine",
            found=log.first_error() or "it gave no reason",
            cure="build on the machine whose GPU is to run the engine; `promptray doctor` says what it has",
        )
    network = create_network(trt, builder, flavour)
    parser = trt.OnnxParser(network, log)
    if not parser.parse(content):
        return _parser_refusal(parser, log, flavour)
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.clear_flag(trt.BuilderFlag.TF32)
    if (strict := getattr(trt.BuilderFlag, "STRICT_NANS", None)) is not None:  # 10.3 has it not yet
        config.set_flag(strict)  # 0 * x is not 0 where x is no number
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace_bytes)
    allow_types(trt, config, flavour, request.types)
    refused = _set_targets(trt, config, request.targets) or _add_profiles(
        builder, network, config, request.profiles
    )
    if refused:
        return refused
    if not flavour.ahead_of_time:
        _use_timing_cache(config, timing_cache)
    monitor = open_monitor(trt, phases)
    if monitor is not None:
        config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        return refusal(log.first_error())
    measured = None
    if not flavour.ahead_of_time:
        cache = config.get_timing_cache()
        measured = bytes(cache.serialize())
    seconds = time.monotonic() - started
    return Compiled(bytes(plan), layers_of(log.layers), list(request.targets), seconds, measured)


def _use_timing_cache(config: Any, earlier: bytes | None) -> None:
    """Go on with the times of an earlier build; begin anew where TensorRT says they are of another device."""
    cache = config.create_timing_cache(earlier or b"")
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        config.set_timing_cache(config.create_timing_cache(b""), ignore_mismatch=False)


def _parser_refusal(parser: Any, log: Log, flavour: Flavour) -> Refused:
    """Return the parser's first error with the node that it names."""
    if not parser.num_errors:
        return refusal(log.first_error())
    parser_error = parser.get_error(0)
    return refusal(one_line(parser_error.desc()), node_of(parser_error, flavour))


def _set_targets(trt: Any, config: Any, targets: Sequence[str]) -> Refused | None:
    """Say which GPUs the engine is for; every one must be accepted, or there is no engine."""
    if not targets:
        return None
    config.num_compute_capabilities = len(targets)
    known = capabilities(trt)
    for index, target in enumerate(targets):
        if target not in known or not config.set_compute_capability(known[target], index):
            return Refused(
                code="engine.target",
                message="this TensorRT-RTX does not build engines for GPUs of that compute capability",
                artefact=target,
                expected=f"one of {', '.join(known)}",
                cure="build the engine on that device with its own TensorRT: `promptray engine BUNDLE "
                "--backend tensorrt`",
            )
    return None


def _add_profiles(builder: Any, network: Any, config: Any, profiles: Sequence[Profile]) -> Refused | None:
    """Give every dynamic input its shapes."""
    inputs = {tensor.name: tensor for tensor in map(network.get_input, range(network.num_inputs))}
    dynamic = {name for name, tensor in inputs.items() if -1 in tuple(tensor.shape)}
    for given in profiles or [Profile({})]:
        if missing := sorted(dynamic - set(given.shapes)):
            return refusal("no optimization profile has been defined", f"input {missing[0]}")
        profile = builder.create_optimization_profile()
        for name, shapes in given.shapes.items():
            if name not in inputs:
                return _misfit(name, "an input of the graph", "none of this name")
            try:
                profile.set_shape(name, *shapes)
            except ValueError as error:
                return _misfit(name, "least <= tuned <= most", one_line(str(error)))
        if given.shapes and config.add_optimization_profile(profile) < 0:
            return _misfit(
                ", ".join(given.shapes), "shapes that the graph takes", str(dict(given.shapes))[:300]
            )
    return None


def _misfit(name: str, expected: str, found: str) -> Refused:
    return Refused(
        code="engine.build-failed",
        message="the shapes that an engine is asked for do not fit the graph",
        artefact=f"input {name}",
        expected=expected,
        found=found,
        cure="change images or prompts of section `tensorrt` of the recipe, and build the bundle again",
    )
