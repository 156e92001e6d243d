"""TensorRT's runtime: a plan becomes an engine, an engine gives contexts of fixed shapes.

Written to what TensorRT 8.6, 10.3 to 11 and TensorRT-RTX 1.x have in common.
"""

from __future__ import annotations

import importlib
import math
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from promptray.runtime.backends.call_sizes import call_sizes
from promptray.runtime.backends.cuda import Cuda
from promptray.runtime.backends.cuda_resources import Stream
from promptray.runtime.backends.declared import DeclaredGraph, Tensors, require_declared
from promptray.runtime.engines.libraries import CURES, MODULES, PROMISED, is_promised
from promptray.runtime.errors import ScoringError

Shape = tuple[int, ...]
#: Least, tuned and most of an input.
Profile = tuple[Shape, Shape, Shape]


def load_library(flavour: str) -> Any:
    """Return the Python module of TensorRT or TensorRT-RTX.

    Raises
    ------
    ScoringError
        ``backend.unavailable`` with what keeps it from being imported, or for a version that is not promised.
    """
    reason = ""
    for name in MODULES[flavour]:
        try:
            library = importlib.import_module(name)
            break
        except (ImportError, OSError, RuntimeError) as error:
            reason = reason or (str(error).splitlines() or [type(error).__name__])[0][:200]
    else:
        raise _unavailable(flavour, "its library cannot be loaded", found=reason)
    if not is_promised(flavour, str(library.__version__)):
        what = "its library has a version that this software is not written for"
        raise _unavailable(flavour, what, expected=PROMISED[flavour], found=str(library.__version__))
    return library


def _unavailable(flavour: str, what: str, *, expected: str | None = None, found: str) -> ScoringError:
    return ScoringError(
        "backend.unavailable",
        what,
        artefact=flavour,
        expected=expected,
        found=found,
        cure=f"{CURES[flavour]}; `promptray doctor` shows what is there",
    )


class Library:
    """TensorRT's runtime with a log that keeps the errors of each thread's latest call.

    Parameters
    ----------
    flavour : {"tensorrt", "tensorrt_rtx"}
    cuda : Cuda
    """

    def __init__(self, flavour: str, cuda: Cuda) -> None:
        self.trt = trt = load_library(flavour)
        self.flavour, self.cuda, self.version = flavour, cuda, str(trt.__version__)
        self._said = said = threading.local()
        most = trt.ILogger.Severity.ERROR

        class Log(trt.ILogger):  # type: ignore[name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity <= most:
                    said.errors = [*getattr(said, "errors", [])[:99], message]

        self._log = Log()
        self.runtime = trt.Runtime(self._log)

    def listen(self) -> None:
        """Forget what was said of this thread's earlier calls: what is said now is of the next."""
        self._said.errors = []

    def failed(self, what: str) -> ScoringError:
        """Return the error of a call that failed, with the first line TensorRT said of it."""
        errors = getattr(self._said, "errors", [])
        self.listen()
        return self.cuda.check_library(f"{self.flavour} {self.version}: {what}", errors)


class Engine:
    """A plan that was loaded. Contexts are made one at a time.

    Parameters
    ----------
    library : Library
    plan : bytes-like
    facts : DeclaredGraph
        The bundle's graph that it was compiled from: the engine must have its inputs and outputs.

    Raises
    ------
    ScoringError
        ``backend.failed`` for a plan that this library or GPU does not load, or another graph's.
    """

    def __init__(self, library: Library, plan: bytes | memoryview, facts: DeclaredGraph) -> None:
        self.library, self.facts = library, facts
        library.listen()
        # No variable here holds the engine itself: a traceback would keep it beyond closing.
        self._own = library.cuda.keep(self, library.runtime.deserialize_cuda_engine(plan))
        if self._own.value is None:
            raise library.failed(f"the engine of the {facts.title} graph cannot be loaded")
        self.dtypes, sides = _tensors(self._own.value, library.trt)
        self.inputs, self.outputs = (tuple(side) for side in sides)
        require_declared(facts, *sides)
        self._profiles = _profiles(self._own.value, self.inputs)
        self._running = library.cuda.keep(self, _runtime_config(self._own.value, library.trt, facts))

    def context(self) -> Any:
        """Make one of TensorRT's own contexts; None where it cannot."""
        if self._running.value is None:
            return self._own.value.create_execution_context()
        return self._own.value.create_execution_context(self._running.value)

    def call_sizes(self, name: str) -> tuple[int, ...]:
        """Return the numbers of images that calls are made with (see :func:`call_sizes`).

        Parameters
        ----------
        name : str
            An input whose first dimension is the images.
        """
        ranges = [profile[name] for profile in self._profiles]
        return call_sizes([tuned[0] for _, tuned, _ in ranges], max(most[0] for _, _, most in ranges))

    def least(self) -> dict[str, Shape]:
        """Return the least shapes of the first profile."""
        return {name: least for name, (least, _, _) in self._profiles[0].items()}

    def profile_for(self, shapes: Mapping[str, Shape]) -> int:
        """Return the profile that takes these shapes; of several the one that is tuned nearest to them.

        Raises
        ------
        ScoringError
            ``backend.shape`` with the shape that lies outside and what is taken.
        """
        fitting = [
            (self._distance(profile, shapes), number)
            for number, profile in enumerate(self._profiles)
            if all(_within(shape, profile[name]) for name, shape in shapes.items())
        ]
        if fitting:
            return min(fitting)[1]
        name = next(
            (
                name
                for name, shape in shapes.items()
                if not any(_within(shape, profile[name]) for profile in self._profiles)
            ),
            next(iter(shapes)),
        )
        ranges = (f"{list(each[name][0])} to {list(each[name][2])}" for each in self._profiles)
        raise ScoringError(
            "backend.shape",
            "the engine was not built for input of this shape",
            artefact=f"{self.facts.title} engine, input {name}",
            expected=" or ".join(dict.fromkeys(ranges)),
            found=str(list(shapes[name])),
            cure="use fewer; or set wider ranges in the recipe's section `tensorrt` and build anew: "
            "`promptray engine BUNDLE --rebuild`",
        )

    def _distance(self, profile: Mapping[str, Profile], shapes: Mapping[str, Shape]) -> int:
        return sum(abs(math.prod(profile[name][1]) - math.prod(shape)) for name, shape in shapes.items())


class Context:
    """An execution context with fixed shapes, for one stream.

    Attributes
    ----------
    engine : Engine
    shapes : dict of str to tuple of int
        Of every output.
    """

    def __init__(self, engine: Engine, shapes: Mapping[str, Shape], stream: Stream) -> None:
        self.engine, self._library = engine, engine.library
        profile = engine.profile_for(shapes)
        self._library.listen()
        self._own = self._library.cuda.keep(self, engine.context())
        if self._own.value is None:
            raise self._failed("there is no execution context")
        self.shapes = self._fix(profile, shapes, stream)

    def _fix(self, profile: int, shapes: Mapping[str, Shape], stream: Stream) -> dict[str, Shape]:
        """Set the shapes of the inputs and return those of the outputs."""
        done = self._own.value.set_optimization_profile_async(profile, stream.handle)
        self._require(done, "a profile was refused")
        self.reshape(shapes)
        return {name: tuple(self._own.value.get_tensor_shape(name)) for name in self.engine.outputs}

    def reshape(self, shapes: Mapping[str, Shape]) -> None:
        """Give the inputs other shapes, of the same profile; :attr:`shapes` stay those of the outputs."""
        for name, shape in shapes.items():
            self._library.listen()
            self._require(self._own.value.set_input_shape(name, shape), f"the shape of {name} was refused")

    def place(self, name: str, address: int) -> None:
        """Say where a tensor lies."""
        self._library.listen()
        self._require(self._own.value.set_tensor_address(name, address), f"the memory of {name} was refused")

    def enqueue(self, stream: Stream) -> None:
        """Queue one execution."""
        self._library.listen()
        if not self._own.value.execute_async_v3(stream.handle):
            raise self._failed("an execution was refused")

    def _require(self, done: bool, what: str) -> None:
        if not done:
            raise self._failed(what)

    def _failed(self, what: str) -> ScoringError:
        return self._library.failed(f"{self.engine.facts.title} engine: {what}")


def _runtime_config(engine: Any, trt: Any, facts: DeclaredGraph) -> Any:
    """Return how TensorRT-RTX, which compiles kernels for shapes at run time, is to do it; else None.

    Eagerly, before the first execution: by default kernels that give other bits would replace the first ones
    at some later call, which no gate has seen. What is compiled is shared by all contexts of the engine.
    What prepares images meets a new shape with every size of image: it runs the one kernel for all shapes,
    which is what its gate saw, and nothing is compiled while an image waits.
    """
    strategies = getattr(trt, "DynamicShapesKernelSpecializationStrategy", None)
    if strategies is None:
        return None
    running = engine.create_runtime_config()
    running.dynamic_shapes_kernel_specialization_strategy = (
        strategies.NONE if facts.role == "prepare" else strategies.EAGER
    )
    running.set_runtime_cache(running.create_runtime_cache())
    return running


def _tensors(engine: Any, trt: Any) -> tuple[dict[str, np.dtype[Any]], tuple[Tensors, Tensors]]:
    """Return the type of every tensor, and inputs and outputs with type and number of dimensions."""
    dtypes: dict[str, np.dtype[Any]] = {}
    inputs: dict[str, tuple[str, int]] = {}
    outputs: dict[str, tuple[str, int]] = {}
    for number in range(engine.num_io_tensors):
        name = engine.get_tensor_name(number)
        dtypes[name] = np.dtype(trt.nptype(engine.get_tensor_dtype(name)))
        side = inputs if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT else outputs
        side[name] = dtypes[name].name, len(engine.get_tensor_shape(name))
    return dtypes, (inputs, outputs)


def _profiles(engine: Any, inputs: Sequence[str]) -> list[dict[str, Profile]]:
    found = []
    for number in range(engine.num_optimization_profiles):
        profile: dict[str, Profile] = {}
        for name in inputs:
            least, tuned, most = (tuple(each) for each in engine.get_tensor_profile_shape(name, number))
            profile[name] = least, tuned, most
        found.append(profile)
    return found


def _within(shape: Shape, profile: Profile) -> bool:
    least, _, most = profile
    return len(shape) == len(least) and all(
        low <= side <= high for low, side, high in zip(least, shape, most, strict=True)
    )
