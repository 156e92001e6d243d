"""TensorRT's runtime as far as the product uses it, on the simulated GPU of :mod:`tests.fake_cuda`.

A plan is an ONNX model with a header; executing it runs ONNX Runtime on the CPU over the device memory that
was given. Names and rules are TensorRT's own:

- A plan is of one version and one compute capability; any other gives None and an error in the log.
- Shapes must lie in the profile that was chosen, and every tensor needs an address on the device.
- Before version 10 no two contexts of an engine hold the same profile, unless it was built for that.
- After a change of shape an execution must come before a capture: it does what cannot be recorded.
- TensorRT-RTX gives other bits from some execution on, unless it was told to compile kernels eagerly.
- A context holds memory, and must live as long as work of its is queued or in a graph.
"""

from __future__ import annotations

import enum
import json
import struct
import sys
import weakref
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest

from tests.fake_cuda import Gpu, simulated
from tests.fake_cuda_rules import simulated_module

VERSION = "10.3.0"
_MAGIC = b"simulated plan\n"
_FALLBACKS = 3
_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(int64)": np.int64,
           "tensor(int32)": np.int32}  # fmt: skip
Shape = Sequence[int]
Profile = Mapping[str, tuple[Shape, Shape, Shape]]


def make_plan(
    content: bytes,
    profiles: Sequence[Profile],
    *,
    version: str = VERSION,
    compute_capability: tuple[int, int] = (8, 9),
    shares_profiles: bool | None = None,
) -> bytes:
    """Return the plan of an ONNX model; a profile is least, tuned and most of each dynamic input.

    Before 10, contexts share profiles only where the builder was asked for it; from 10 on they do.
    """
    shares = int(version.partition(".")[0]) >= 10 or bool(shares_profiles)
    ranges = [{name: [list(each) for each in shapes] for name, shapes in one.items()} for one in profiles]
    facts = {
        "version": version, "compute_capability": compute_capability, "profiles": ranges, "shares": shares,
    }  # fmt: skip
    header = json.dumps(facts).encode()
    return _MAGIC + struct.pack("<I", len(header)) + header + content


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class ILogger:
    Severity = Severity

    def __init__(self) -> None:
        self.ready = True

    def log(self, severity: Severity, message: str) -> None:
        raise NotImplementedError


class TensorIOMode(enum.IntEnum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class Specialization(enum.Enum):
    LAZY = 0
    EAGER = 1
    NONE = 2


class RuntimeConfig:
    """Of TensorRT-RTX: how contexts compile kernels for their shapes, lazily by default."""

    def __init__(self) -> None:
        self.dynamic_shapes_kernel_specialization_strategy = Specialization.LAZY

    def create_runtime_cache(self) -> object:
        return object()

    def set_runtime_cache(self, cache: object) -> bool:
        return True


class TensorRT:
    """The module; ``version`` is what it says it is, `fails_next` fails the next execution.

    Attribute `nan_in`: outputs in which executions give what is no number, as where numbers leave float16's
    range. `hides_nan`: executions take what is no number for 0, as a ReLU may. `specialised`: the shapes that
    TensorRT-RTX compiled kernels for while it ran.
    """

    def __init__(self, gpu: Gpu, version: str = VERSION) -> None:
        self.gpu, self.version = gpu, version
        self.fails_next = self.specialises = False
        self.nan_in: set[str] = set()
        self.hides_nan = False
        self.specialised: list[dict[str, Shape]] = []

    def module(self, name: str) -> ModuleType:
        """The Python module of this library."""
        self.specialises = name == "tensorrt_rtx"
        of_rtx = {
            "DynamicShapesKernelSpecializationStrategy": Specialization,
            "ComputeCapability": ComputeCapability,
        }
        own = of_rtx if self.specialises else {}
        return simulated_module(
            name, __version__=self.version, ILogger=ILogger, TensorIOMode=TensorIOMode,
            Runtime=lambda logger: Runtime(self, logger), nptype=lambda dtype: dtype, **own,
        )  # fmt: skip


ComputeCapability = enum.Enum(
    "ComputeCapability", ["SM75", "SM80", "SM86", "SM89", "SM120", "SM121", "CURRENT"]
)


class Runtime:
    def __init__(self, library: TensorRT, logger: ILogger) -> None:
        assert logger.ready, "ILogger.__init__ was not called"
        self.library, self.logger = library, logger

    def deserialize_cuda_engine(self, plan: bytes | memoryview) -> Engine | None:
        plan = bytes(plan)
        if not plan.startswith(_MAGIC):
            self.logger.log(Severity.ERROR, "IRuntime::deserializeCudaEngine: magicTag does not match")
            return None
        (length,) = struct.unpack_from("<I", plan, len(_MAGIC))
        body = plan[len(_MAGIC) + 4 :]
        facts = json.loads(body[:length])
        if facts["version"] != self.library.version:
            self.logger.log(Severity.ERROR, f"the plan is of version {facts['version']}")
            return None
        if tuple(facts["compute_capability"]) != self.library.gpu.compute_capability:
            self.logger.log(Severity.ERROR, "the plan was made for another compute capability")
            return None
        memory = self.library.gpu.take(1024)
        if memory is None:
            self.logger.log(Severity.ERROR, "Cuda Runtime (out of memory)")
            return None
        return Engine(self, facts["profiles"], body[length:], memory, facts["shares"])


class Engine:
    def __init__(
        self, runtime: Runtime, profiles: list[Any], content: bytes, memory: int, shares_profiles: bool
    ) -> None:
        self.runtime, self.profiles, self.shares_profiles = runtime, profiles, shares_profiles
        self.contexts: weakref.WeakSet[Context] = weakref.WeakSet()
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        self.session = ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self.inputs = {node.name: node for node in self.session.get_inputs()}
        self.outputs = {node.name: node for node in self.session.get_outputs()}
        self.tensors = {**self.inputs, **self.outputs}
        weakref.finalize(self, runtime.library.gpu.give, memory).atexit = False

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self.profiles)

    def get_tensor_name(self, index: int) -> str:
        return list(self.tensors)[index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self.inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return _DTYPES[self.tensors[name].type]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(side if isinstance(side, int) else -1 for side in self.tensors[name].shape)

    def get_tensor_profile_shape(self, name: str, profile: int) -> tuple[Shape, Shape, Shape]:
        fixed = self.get_tensor_shape(name)
        least, tuned, most = self.profiles[profile].get(name, (fixed, fixed, fixed))
        return tuple(least), tuple(tuned), tuple(most)

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig()

    def create_execution_context(self, runtime_config: RuntimeConfig | None = None) -> Context | None:
        memory = self.runtime.library.gpu.take(512)
        if memory is None:
            self.runtime.logger.log(Severity.ERROR, "Cuda Runtime (out of memory)")
            return None
        strategy = (runtime_config or RuntimeConfig()).dynamic_shapes_kernel_specialization_strategy
        if not self.runtime.library.specialises:
            strategy = Specialization.NONE
        return Context(self, memory, strategy)


class Context:
    def __init__(self, engine: Engine, memory: int, strategy: Specialization) -> None:
        self.engine, self.strategy, self.executions = engine, strategy, 0
        self.gpu, self.library = engine.runtime.library.gpu, engine.runtime.library
        self.profile = 0 if engine.shares_profiles or not engine.contexts else -1
        engine.contexts.add(self)
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.settled = False
        self.found: dict[str, tuple[int, ...]] = {}
        weakref.finalize(self, self.gpu.give, memory).atexit = False

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        if not 0 <= profile_index < self.engine.num_optimization_profiles:
            return self._error("no such profile")
        others = [each for each in self.engine.contexts if each is not self]
        if not self.engine.shares_profiles and profile_index in [each.profile for each in others]:
            return self._error(f"profile {profile_index} is in use by another execution context")
        self.profile, self.settled, self.shapes = profile_index, False, {}
        return self.gpu.enqueue(stream_handle, lambda: None)

    def set_input_shape(self, name: str, shape: Shape) -> bool:
        least, _, most = self.engine.get_tensor_profile_shape(name, self.profile)
        if len(shape) != len(least) or not all(
            a <= b <= c for a, b, c in zip(least, shape, most, strict=True)
        ):
            return self._error(f"{name}: {tuple(shape)} is not within profile {self.profile}")
        if self.shapes.get(name) != tuple(shape):
            self.shapes[name], self.settled, self.found = tuple(shape), False, {}
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self.engine.inputs:
            return self.shapes[name]
        if not self.found:
            self.found = self._shapes()
        return self.found[name]

    def set_tensor_address(self, name: str, memory: int) -> bool:
        assert type(memory) is int
        if name not in self.engine.tensors:
            return self._error(f"no tensor {name}")
        self.addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        assert type(stream_handle) is int
        if self.library.fails_next:
            self.library.fails_next = False
            return self._error("myelin failed")
        if self.shapes.keys() != self.engine.inputs.keys():
            return self._error("not every input has a shape")
        if not self.settled and self.gpu.capturing(stream_handle):
            self.gpu.spoil_capture(stream_handle)
            return self._error("operation not permitted when stream is capturing")
        addresses = dict(self.addresses)
        places = {
            name: (self.get_tensor_shape(name), _dtype(node)) for name, node in self.engine.tensors.items()
        }
        for name, (shape, dtype) in places.items():
            size = int(np.prod(shape)) * dtype.itemsize
            if name not in addresses or not self.gpu.on_device(addresses[name], size):
                return self._error(f"{name} has no memory on the device")
        if not self.settled and self.strategy is Specialization.EAGER:
            self.library.specialised.append(self.shapes)
        self.settled = True
        alive, session = weakref.ref(self), self.engine.session
        library = self.library
        gpu, inputs, outputs = self.gpu, list(self.engine.inputs), list(self.engine.outputs)

        def work() -> None:
            if alive() is None:
                gpu.violations.append("a context was destroyed while its work was queued")
            feeds = {name: gpu.read(addresses[name], *places[name]) for name in inputs}
            if library.hides_nan:
                feeds = {name: np.nan_to_num(values, nan=0) for name, values in feeds.items()}
            # Kernels made for the shape, which come some calls later, give other bits.
            other = 0
            if (context := alive()) is not None and context.strategy is Specialization.LAZY:
                context.executions += 1
                other = int(context.executions > _FALLBACKS)
            for name, found in zip(outputs, session.run(outputs, feeds), strict=True):
                values = np.nextafter(found, found.dtype.type(9)) if other else found
                gpu.write(addresses[name], values * np.nan if name in library.nan_in else values)

        return self.gpu.enqueue(stream_handle, work)

    def _shapes(self) -> dict[str, tuple[int, ...]]:
        """What TensorRT infers, found by a run on zeros."""
        feeds = {name: np.zeros(self.shapes[name], _dtype(node)) for name, node in self.engine.inputs.items()}
        names = list(self.engine.outputs)
        return {n: found.shape for n, found in zip(names, self.engine.session.run(names, feeds), strict=True)}

    def _error(self, message: str) -> bool:
        self.engine.runtime.logger.log(Severity.ERROR, message)
        return False


def _dtype(node: Any) -> np.dtype[Any]:
    return np.dtype(_DTYPES[node.type])


@contextmanager
def simulated_tensorrt(
    gpu: Gpu | None = None, *, flavour: str = "tensorrt", version: str = VERSION
) -> Iterator[tuple[Gpu, TensorRT]]:
    """Put the simulated GPU behind ``cuda.bindings.runtime`` and this library behind ``tensorrt``."""
    with simulated(gpu) as made, pytest.MonkeyPatch.context() as patch:
        library = TensorRT(made, version)
        patch.setitem(sys.modules, flavour, library.module(flavour))
        yield made, library
