"""The TensorRTs there are: which module, what each can be asked for, and the few ways in which they differ.

Networks are strongly typed from 10 on: the types of the ONNX graph are the types of the engine. 8.6, of
JetPack 6.0, is weakly typed and has an older parser: what differs for it is in this file.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal, get_args

from promptray.runtime.engines.libraries import (
    CURES,
    MODULES,
    PROMISED,
    is_promised,
    newest_opset,
    strongly_typed,
)
from promptray.runtime.errors import BuildError

FlavourName = Literal["tensorrt", "tensorrt_rtx"]


@dataclass(frozen=True)
class Flavour:
    """One TensorRT that is installed here.

    Attributes
    ----------
    name : {'tensorrt', 'tensorrt_rtx'}
        The first builds for the GPU that it runs on, the second for named targets, on any machine.
    module : str
        Name of its Python module.
    version : str
    """

    name: FlavourName
    module: str
    version: str

    @property
    def strongly_typed(self) -> bool:
        """Whether an engine has the types of its graph: all but TensorRT 8.6."""
        return strongly_typed(self.name, self.version)

    @property
    def newest_opset(self) -> int:
        """Newest ONNX operator set that all parsers of this kind read: 20 for 10.3 and later, 17 for 8.6."""
        return newest_opset(self.name, self.version)

    @property
    def newest_ir(self) -> int:
        """Newest version of the ONNX file format, likewise."""
        return 10 if self.strongly_typed else 8

    @property
    def ahead_of_time(self) -> bool:
        """Whether it builds for named targets instead of the GPU that it runs on."""
        return self.name == "tensorrt_rtx"

    @property
    def title(self) -> str:
        """What people call it."""
        return f"{'TensorRT-RTX' if self.ahead_of_time else 'TensorRT'} {self.version}"

    def load(self) -> Any:
        """Return the module."""
        return importlib.import_module(self.module)


def load_flavour(name: str) -> Flavour:
    """Find a TensorRT on this machine and import it.

    Parameters
    ----------
    name : {'tensorrt', 'tensorrt_rtx'}

    Raises
    ------
    BuildError
        ``engine.unavailable`` when it is not installed, cannot be imported or is of no promised version.
    """
    if name not in get_args(FlavourName):
        raise ValueError(f"no TensorRT is called {name!r}; there are {', '.join(MODULES)}")
    module = next((each for each in MODULES[name] if importlib.util.find_spec(each)), None)
    if module is None:
        raise _unavailable(name, f"{name} is not installed")
    try:
        version = str(importlib.import_module(module).__version__)
    except (ImportError, OSError, AttributeError) as error:
        line = (str(error).splitlines() or [type(error).__name__])[0][:300]
        raise _unavailable(name, f"{name} is installed but cannot be imported: {line}") from error
    if not is_promised(name, version):
        what = f"{name} {version} is no version that this software is written for"
        raise _unavailable(name, what, PROMISED[name])
    return Flavour(name, module, version)  # type: ignore[arg-type]


def _unavailable(name: str, what: str, expected: str | None = None) -> BuildError:
    return BuildError("engine.unavailable", what, artefact=name, expected=expected, cure=CURES[name])


def create_network(trt: Any, builder: Any, flavour: Flavour) -> Any:
    """Return an empty network of a builder."""
    if flavour.strongly_typed:
        return builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    return builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH))


def allow_types(trt: Any, config: Any, flavour: Flavour, types: Collection[str]) -> None:
    """Let a weakly typed network use lower types than float32; a strongly typed one has its graph's.

    It then chooses a type for each layer by speed, also for layers that the graph keeps in float32 for their
    range: only the gate on the device finds out what that does. A graph with Q/DQ pairs has a float32 rest in
    opset 17, and float16 is meant for that rest too.

    Parameters
    ----------
    types : collection of str
        Types of the graph's constants, as :attr:`promptray.export.tensorrt.model.Model.types` names them.
    """
    if flavour.strongly_typed:
        return
    if {"FP16", "INT8"} & set(types):
        config.set_flag(trt.BuilderFlag.FP16)
    if "INT8" in types:
        config.set_flag(trt.BuilderFlag.INT8)
    # Without it no two contexts of an engine may hold the same profile; each stream has contexts of its own.
    config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)
    # Its cuDNN 8 and cuBLAS 12 may be absent, and its own kernels suffice for these graphs.
    config.set_tactic_sources(0)


def capabilities(trt: Any) -> dict[str, Any]:
    """Return what a TensorRT-RTX builds for: compute capabilities, such as ``8.6``, and its constants."""
    members = dict(trt.ComputeCapability.__members__)
    return {f"{name[2:-1]}.{name[-1]}": value for name, value in members.items() if name.startswith("SM")}


def node_of(parser_error: Any, flavour: Flavour) -> str | None:
    """Return how people find the node that a parser complains of; 8.6 has its number alone."""
    if not flavour.strongly_typed:
        return f"node number {parser_error.node()}"
    operator = parser_error.node_operator()
    return f"node {parser_error.node_name()}, {operator}" if operator else None
