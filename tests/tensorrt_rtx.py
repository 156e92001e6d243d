"""What TensorRT makes of a graph: an engine of TensorRT-RTX for a named GPU, built on this CPU.

RTX has the ONNX parser and the network rules of TensorRT 11, but its own compiler: its layers say what may be
fused and in which type, not what another TensorRT on another GPU does. Nothing here runs an engine.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorrt_rtx_bindings as trt

SM86, SM89 = trt.ComputeCapability.SM86, trt.ComputeCapability.SM89


class Refused(Exception):
    """The first error of the parser or the builder."""


@dataclass(frozen=True)
class Engine:
    """The size of an engine, and its layers after fusion: each a kind and the types of its inputs."""

    size: int
    layers: list[tuple[str, tuple[str, ...]]]

    def products(self, dtype: str) -> int:
        """Count matrix products and convolutions of two tensors of a type."""
        kinds = ("gemm", "correlation")
        return sum(kind in kinds and types[:2] == (dtype, dtype) for kind, types in self.layers)


class _Log(trt.ILogger):
    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.seen: list[tuple[Any, str]] = []

    def log(self, severity: Any, message: str) -> None:
        self.seen.append((severity, message))

    def first_error(self) -> str:
        return next((text for severity, text in self.seen if severity <= trt.ILogger.Severity.ERROR), "")


def build(content: bytes, feed: Mapping[str, Any], target: Any) -> Engine:
    """Build for one compute capability and for calls of the shapes of ``feed``.

    Raises
    ------
    Refused
        With the first thing that TensorRT says.
    """
    log = _Log()
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(content):
        raise Refused(parser.get_error(0).desc())
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    assert config.set_compute_capability(target, 0)
    profile = builder.create_optimization_profile()
    for number in range(network.num_inputs):
        name = network.get_input(number).name
        profile.set_shape(name, *[np.shape(feed[name])] * 3)
    config.add_optimization_profile(profile)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise Refused(log.first_error())
    listed = next(text for _, text in log.seen if text.startswith("Layers:"))
    return Engine(plan.nbytes, [_layer(line) for line in listed.splitlines() if "LayerType:" in line])


def _layer(line: str) -> tuple[str, tuple[str, ...]]:
    kind = re.search(r"LayerType: (\w+)", line)
    assert kind
    return kind[1], tuple(re.findall(r"Datatype: (\w+)", line.split("Outputs:")[0]))
