"""Backends run graphs. Each is one module that offers the small protocol below.

A backend compiles a graph once (:meth:`Backend.load`). A graph is then bound to arrays that stay the same
over many calls, the prompt bank above all (:meth:`Graph.bind`). The image graph and bound heads make a chain
(:meth:`Backend.chain`), through which an image goes in one call. Binding is what lets a device keep the bank
resident, and what makes a change of prompts atomic: a new chain replaces the old one in a single assignment.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from promptray.runtime.backends.declared import DeclaredGraph
from promptray.runtime.backends.host_settings import GATED, HostSettings
from promptray.runtime.bundle.manifest import Graph as GraphFacts
from promptray.runtime.deadline import Deadline
from promptray.runtime.engines.facts import EngineFacts
from promptray.runtime.errors import ScoringError

if TYPE_CHECKING:
    from promptray.runtime.prepare_graph import StoredImage

Array = NDArray[Any]


class EngineRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The set of engines that scored, and the gate that let it through on this device.

    Attributes
    ----------
    key : str
        Its name in the site directory (``promptray inspect`` lists it).
    gate : str
        ``golden``: the golden pictures. ``images(n, hash)``: also the gates on that many images.
    """

    key: str
    gate: str


class DecodeRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The gate that let JPEG 2000 be decoded at a lower resolution.

    Attributes
    ----------
    key : str
        Its name in the site directory (``promptray inspect`` lists it).
    gate : str
        ``images(n, hash)``: the gates on that many images, each decoded whole and at a lower resolution.
    """

    key: str
    gate: str


class BackendFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ran, where and why: shown in every result.

    Attributes
    ----------
    name : str
        The name ``backend=`` takes, also the consumer named in the bundle's graphs.
    version : str
        Version of the library behind it.
    device : str
        The device the graphs run on.
    precision : str
        Precision of the graphs that score: one word where all have the same, else each with its precision.
    threads : int
        Threads of one call.
    reason : str
        Why this backend was chosen.
    gated_as : str or None
        What the changed graphs that score were gated as, say ``onnxruntime-cpu@x86_64-avx2``: another class
        of machine gives other scores. Of engines ``tensorrt@<key of the set>``. None where no graph was
        changed.
    engines : EngineRef or None
        None where the backend runs the bundle's graphs themselves.
    prepare : {"cpu", "device"}
        Where images are brought to the network's input. With ``device``, an image that the CPU prepared after
        all has the notice ``prepared-on-cpu``.
    text : str or None
        The backend that encodes added prompts, where it is another: engines are of the image side and heads.
    settings : HostSettings or None
        Of a backend of the processor, where they are others than those that graphs are gated with.
    decode : DecodeRef or None
        None where JPEG 2000 is decoded whole. Where `gated_as` says that it is not, None says that this was
        only measured, by ``bench``, ``accept`` or a benchmark, and no gate was passed.
    """

    name: str
    version: str
    device: str
    precision: str
    threads: int
    reason: str
    gated_as: str | None
    engines: EngineRef | None = None
    text: str | None = None
    prepare: Literal["cpu", "device"] = "cpu"
    settings: HostSettings | None = None
    decode: DecodeRef | None = None


@dataclass(frozen=True)
class GpuOptions:
    """How a GPU is used. Only backends of a GPU take them.

    Attributes
    ----------
    streams : int
        Images under way at once: each stream has memory and execution contexts of its own. A further call
        waits for the oldest. ONNX Runtime has one at a time.
    cuda_graphs : bool
        Record the work of a call once and launch it whole, unless the engines were gated without
        (``promptray engine --no-cuda-graphs``). False: every layer is queued anew for each call.
    """

    streams: int = 2
    cuda_graphs: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.streams <= 16:
            raise ValueError("streams must be 1 to 16")


@dataclass(frozen=True, eq=False)
class Outputs:
    """What a chain gives for B images.

    Attributes
    ----------
    heads : sequence of dict of str to array
        Every output of each bound head, in the order the chain was made of. They belong to whoever asked: no
        later call writes to their memory. All are numbers: chains refuse others, also of what only pads.
    timing : dict of str to float
        Milliseconds: ``image`` and ``head`` where they are run one after the other, ``infer`` where both are
        one call.
    """

    heads: Sequence[Mapping[str, Array]]
    timing: Mapping[str, float]


class Pending(Protocol):
    """Images that were submitted. Thread-safe.

    Attributes
    ----------
    images : int
        How many.
    """

    images: int

    def done(self) -> bool:
        """Tell whether the answer is there; never waits."""
        ...

    def result(self) -> Outputs:
        """Wait and return the answer; again the same when asked again.

        Raises
        ------
        ScoringError
            ``score.deadline``, ``score.cancelled`` (its limit), ``score.not-finite``, ``backend.*``.
        """
        ...


class Chain(Protocol):
    """The image graph and bound heads, as one call. Thread-safe."""

    def submit(self, pixels: Any, limit: Deadline) -> Pending:
        """Begin to score pixels: float32 (B, channels, height, width), contiguous.

        A NumPy array may be used again when this returns. Backends of a GPU also take an array that is there
        already (DLPack, ``__cuda_array_interface__``) and read it there; it must not be written before the
        answer is there.

        Raises
        ------
        ScoringError
            As of :meth:`Pending.result`; ``score.input``, ``score.closed``.
        """
        ...


class BoundGraph(Protocol):
    """A compiled graph with its resident inputs. ``run`` is thread-safe."""

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run with the remaining inputs; return every output by name (``score.not-finite``, ``backend.*``).

        Engines of a GPU run as part of a chain only.
        """
        ...


class Preparing(Protocol):
    """What brings images of any size to the network's input on the device. ``run`` is thread-safe."""

    def run(self, image: StoredImage) -> Array:
        """Return float32 (1, channels, height, width) on the host; a chain leaves it on the device."""
        ...


class Graph(Protocol):
    """A compiled graph. ``bind`` is thread-safe."""

    def bind(self, resident: Mapping[str, Array]) -> BoundGraph:
        """Keep these inputs on the device; the others are given to each run."""
        ...


class Backend(Protocol):
    """Compiles graphs for one device."""

    name: str
    version: str
    device: str
    threads: int

    @property
    def engines(self) -> EngineFacts | None:
        """The set of engines it runs; None: it runs the bundle's graphs themselves."""
        ...

    @property
    def settings(self) -> HostSettings:
        """How it runs the bundle's graphs; :data:`GATED` for engines, which have settings of their own."""
        ...

    def load(self, model: Callable[[], bytes], facts: GraphFacts) -> Graph:
        """Make a graph ready to run.

        Parameters
        ----------
        model : callable
            Reads the ONNX model and checks its hash; called only by a backend that compiles it now.
        facts : GraphFacts

        Raises
        ------
        ScoringError
            ``backend.failed`` when the model cannot be compiled.
        """
        ...

    def prepare_with(self, facts: DeclaredGraph) -> Preparing:
        """Prepare images on the device: chains made after it also take a ``StoredImage`` as pixels.

        Parameters
        ----------
        facts : DeclaredGraph
            Of the bundle's `prepare` graph.

        Raises
        ------
        ScoringError
            ``engine.no-prepare`` where nothing here does that; ``backend.*``.
        """
        ...

    def chain(self, image: BoundGraph, heads: Sequence[BoundGraph]) -> Chain:
        """Join its own bound graphs, and make the first call's preparations now."""
        ...

    def require_usable(self) -> None:
        """Refuse to go on with a device that was lost.

        Raises
        ------
        ScoringError
            ``score.closed``, naming why.
        """
        ...

    def close(self) -> None:
        """Let what was submitted come to its end, and give the device's memory back."""
        ...


HOST: Final = "onnxruntime-cpu"
OPENVINO: Final = "openvino"
#: Backends of the processor, which run the bundle's graphs themselves. The first one encodes all text.
OF_THE_HOST = (HOST, OPENVINO)
#: Backends of a GPU, which run sets of engines; in the order "auto" asks.
OF_ENGINES = ("tensorrt", "tensorrt_rtx", "onnxruntime-cuda")
NAMES: tuple[str, ...] = (*OF_THE_HOST, *OF_ENGINES)


def load_backend(name: str, *, threads: int | None = None, settings: HostSettings = GATED) -> Backend:
    """Make a backend of the processor, by its name.

    Parameters
    ----------
    name : str
        One of :data:`OF_THE_HOST`.
    threads : int, optional
        Of one call; by default the cores this process may use.
    settings : HostSettings, optional

    Raises
    ------
    ScoringError
        ``backend.unavailable``, ``backend.mixed-wheels``.
    """
    if name not in OF_THE_HOST:
        raise ValueError(f"{name} runs engines: promptray.runtime.backends.choice opens them")
    if name == OPENVINO:
        from promptray.runtime.backends.openvino import OpenVino

        return OpenVino(threads=threads, settings=settings)
    from promptray.runtime.backends.onnxruntime import OnnxRuntimeCpu

    return OnnxRuntimeCpu(threads=threads, settings=settings)


def no_prepare(name: str, found: str, *, has_graph: bool = True) -> ScoringError:
    """Return the error of a backend that cannot prepare images on its device.

    Parameters
    ----------
    name : str
    found : str
        What is there instead.
    has_graph : bool
        Whether the bundle has the graph that engines for it are compiled from.
    """
    builder = name if name.startswith("tensorrt") else "tensorrt"
    return ScoringError(
        "engine.no-prepare",
        "nothing here prepares images on the device",
        artefact=name,
        expected="a set of TensorRT engines with one that prepares images",
        found=found,
        cure=(
            ""
            if has_graph
            else "build the bundle with `prepare: true` in its recipe's section `tensorrt`, then "
        )
        + f'run `promptray engine BUNDLE --backend {builder}`; or leave it to the CPU (prepare="cpu")',
    )


def failed(what: str, facts: GraphFacts, error: Exception) -> ScoringError:
    """Return the error of a fault of the library behind a backend, with its first line."""
    lines = str(error).splitlines() or [type(error).__name__]
    return ScoringError(
        "backend.failed",
        f"{what}: {lines[0][:300]}",
        artefact=facts.file,
        cure="run `promptray verify` on the bundle and `promptray doctor` on this machine",
    )


def require_leading(outputs: Mapping[str, Array], leading: tuple[int, ...], role: str) -> None:
    """Refuse outputs that are not one for each image, of a head for each image and prompt.

    Raises
    ------
    ScoringError
        ``backend.failed``, naming the output.
    """
    for name, values in outputs.items():
        if values.shape[: len(leading)] != leading:
            raise ScoringError(
                "backend.failed",
                "a graph gave another number of answers than it was asked for",
                artefact=f"{role} graph, output {name}",
                expected=f"first dimensions {list(leading)}",
                found=str(list(values.shape)),
                cure="run `promptray verify` on the bundle and `promptray doctor` on this machine",
            )


def require_on_host(pixels: object) -> None:
    """Refuse network input that is no NumPy array.

    Raises
    ------
    ScoringError
        ``score.input``.
    """
    if not isinstance(pixels, np.ndarray):
        raise ScoringError(
            "score.input",
            "this backend takes network input from the host only",
            expected="a NumPy array",
            found=type(pixels).__name__,
            cure="pass the array's NumPy copy, or open the scorer with the backend tensorrt, tensorrt_rtx or "
            "onnxruntime-cuda, which take arrays on the GPU",
        )
