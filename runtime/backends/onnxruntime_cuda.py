"""ONNX Runtime's CUDA provider: the road for a GPU without TensorRT, in true float32 (TF32 off).

The graphs are compiled when the bundle is opened; its set of engines is the record that they passed their
gate on this GPU with this version. The bank and the features stay on the device (IO binding); the work of
each shape is recorded as a CUDA graph, except for the image graph on pixels that lie on the device already,
which is bound to their address for that call.

Nothing of a graph falls to the processor unseen. ONNX Runtime places a node that its provider cannot run on
the processor, and says so in its log only. Its option ``session.disable_cpu_ep_fallback`` refuses every such
node, also those it puts there on purpose: the arithmetic of shapes, a few whole numbers, which every graph of
a free batch has. So another of its rules is used, that for CUDA graphs: a session is refused where anything
would have to be copied between device and processor within the graph, which that arithmetic never needs. It
is asked for always; runs that are not to be recorded say so themselves. What it cannot see is a part that has
nothing on the device at all: so every output must be made there, too.

Thread rules. Every method may be called from any thread; calls run one after the other, since a session with
CUDA graphs runs one at a time, and its recording forbids any other thread to allocate. ONNX Runtime frees a
recorded graph with its session only: where prompts change all day long, open the scorer anew now and then, or
without CUDA graphs.
"""

from __future__ import annotations

import itertools
import re
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NoReturn

import numpy as np
import onnxruntime as ort

from promptray.runtime.backends import Array, GpuOptions, no_prepare
from promptray.runtime.backends.choice import OpenedEngines
from promptray.runtime.backends.cuda import Cuda
from promptray.runtime.backends.declared import DeclaredGraph
from promptray.runtime.backends.host_settings import GATED
from promptray.runtime.backends.lifetime import Lifetime
from promptray.runtime.backends.onnx_files import require_self_contained
from promptray.runtime.backends.onnxruntime import make_session, refuse_mixed_wheels
from promptray.runtime.backends.onnxruntime_cuda_chain import (
    NOT_RECORDED,
    OnnxRuntimeCudaBoundGraph,
    OnnxRuntimeCudaChain,
    OnnxRuntimeCudaGraph,
)
from promptray.runtime.backends.onnxruntime_looks import DeviceLooks, HostLooks
from promptray.runtime.backends.onnxruntime_trial import PROVIDER, fault, find_libraries, missing_library
from promptray.runtime.backends.postponed import when_allowed
from promptray.runtime.bundle.manifest import Graph as GraphFacts
from promptray.runtime.cores import host_threads
from promptray.runtime.engines.device import device_here
from promptray.runtime.engines.facts import EngineFacts
from promptray.runtime.errors import ScoringError

_PATIENCE = 10.0
#: ONNX Runtime's refusal of a session for CUDA graphs, in the words of 1.20 and of 1.31.
_NOT_ON_DEVICE = re.compile(r"session cannot use the (CUDA Graph|graph capture) feature")
#: What ONNX Runtime calls the processor's memory.
_HOST_MEMORY = "Cpu"
#: What it calls the GPU's, where it is asked for.
DEVICE_MEMORY = "cuda"


def version_here(name: str) -> str:
    """Return the version of ONNX Runtime on this machine, where its CUDA provider works.

    Raises
    ------
    ScoringError
        ``backend.unavailable``, ``backend.mixed-wheels``.
    """
    refuse_mixed_wheels()
    find_libraries()
    if PROVIDER not in ort.get_available_providers():
        raise _unavailable(name, missing_library())
    device_here()  # a driver or GPU that is missing is said in its own words
    if found := fault():
        raise _unavailable(name, found)
    return str(ort.__version__)


def open_backend(
    *, engines: OpenedEngines, options: GpuOptions, threads: int | None = None
) -> OnnxRuntimeCuda:
    """Make this backend."""
    version_here("onnxruntime-cuda")
    return OnnxRuntimeCuda(engines, options, threads=threads)


class OnnxRuntimeCuda:
    """Runs graphs on one provider with all tensors in its memory.

    Parameters
    ----------
    engines : OpenedEngines
    options : GpuOptions
        `streams` is of no effect.
    threads : int, optional
        Of the host.
    provider, memory : str
        Others than CUDA's are for tests, which run this code on a machine without a GPU.
    """

    name = "onnxruntime-cuda"
    settings = GATED

    def __init__(
        self,
        engines: OpenedEngines,
        options: GpuOptions,
        *,
        threads: int | None = None,
        provider: str = PROVIDER,
        memory: str = DEVICE_MEMORY,
    ) -> None:
        self._opened, self.threads = engines, host_threads(threads)
        self.version, self.provider, self.memory = str(ort.__version__), provider, memory
        self.cuda = Cuda()
        self.device = self.cuda.device.title
        self.running = threading.Lock()
        self.lifetime = Lifetime(self.cuda.current)
        # One for each shape and each place in memory: what was recorded is replayed by its number, unchecked.
        self.graph_ids: Iterator[int] = (
            itertools.count(1) if options.cuda_graphs else itertools.repeat(NOT_RECORDED)
        )
        self._dropped = weakref.finalize(self, when_allowed, partial(_give_back, self.lifetime, self.cuda))
        self._dropped.atexit = False  # the driver does it, and may be gone by then
        try:
            with self.cuda.current():
                looks = DeviceLooks if memory == DEVICE_MEMORY else HostLooks
                self.looks = looks(self.cuda)
        except BaseException:
            self.close()
            raise

    @property
    def engines(self) -> EngineFacts:
        """The set whose gate this is."""
        return self._opened.facts

    def load(self, model: Callable[[], bytes], facts: GraphFacts) -> OnnxRuntimeCudaGraph:
        """Compile an ONNX model for the provider.

        Raises
        ------
        ScoringError
            ``backend.unavailable`` where ONNX Runtime would run it, or a part of it, on the processor;
            ``backend.failed``, ``backend.out-of-memory``.
        """
        with self.lifetime.use(), self.running:
            self.require_usable()
            content = model()
            require_self_contained(content, facts.file)
            try:
                session = make_session(
                    content, facts, self.provider, self._provider_options(), threads=self.threads
                )
            except ScoringError as error:
                raise self.explained(error) from error
            if session.get_providers()[0] != self.provider:
                raise _unavailable(self.name, missing_library())
            self._require_on_device(session, facts)
            return OnnxRuntimeCudaGraph(self, session, facts)

    def _provider_options(self) -> dict[str, str]:
        if self.provider != PROVIDER:
            return {}
        return {
            "device_id": "0",
            "use_tf32": "0",
            "enable_cuda_graph": "1",  # also for runs that are not recorded: see the module's description
            # By default it measures, and may choose another algorithm, of other bits, at every opening.
            "cudnn_conv_algo_search": "DEFAULT",
        }

    def _require_on_device(self, session: ort.InferenceSession, facts: GraphFacts) -> None:
        """Refuse a graph whose outputs the processor makes. ONNX Runtime before 1.23 does not tell."""
        if self.provider != PROVIDER or not hasattr(session, "get_output_memory_infos"):
            return
        places = zip(session.get_outputs(), session.get_output_memory_infos(), strict=True)
        made = [output.name for output, place in places if place.name == _HOST_MEMORY]
        if made:
            raise _on_processor(facts.file, f"outputs that the processor makes: {', '.join(made)}")

    def prepare_with(self, facts: DeclaredGraph) -> NoReturn:
        """Refuse: ONNX Runtime has no engine that prepares images."""
        raise no_prepare(self.name, "ONNX Runtime, which leaves it to the CPU")

    def chain(
        self, image: OnnxRuntimeCudaBoundGraph, heads: Sequence[OnnxRuntimeCudaBoundGraph]
    ) -> OnnxRuntimeCudaChain:
        """Join bound graphs; memory and CUDA graphs for one image are made now."""
        return OnnxRuntimeCudaChain(self, image, heads)

    def values(self, array: Array) -> ort.OrtValue:
        """Put an array into the provider's memory."""
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), self.memory, 0)

    def explained(self, error: ScoringError) -> ScoringError:
        """Return a fault of ONNX Runtime as what CUDA says it is."""
        if _NOT_ON_DEVICE.search(error.message):
            return _on_processor(error.artefact, error.message)
        if "graph capture" in error.message or "CUDA graph" in error.message:
            return ScoringError(
                "backend.capture", "ONNX Runtime cannot record the graph as a CUDA graph",
                artefact=error.artefact, found=error.message,
                cure="`promptray engine BUNDLE --backend onnxruntime-cuda --no-cuda-graphs` gates it for use "
                "without (in Python, for one scorer: gpu=GpuOptions(cuda_graphs=False))",
            )  # fmt: skip
        if number := re.search(r"CUDA failure (\d+)", error.message):
            return self.cuda.explained("ONNX Runtime", int(number[1]), error.message)
        found = self.cuda.check_library("ONNX Runtime", [error.message])
        return error if found.code == error.code else found

    def require_usable(self) -> None:
        """Refuse to go on with a device that was lost."""
        self.cuda.require_usable()

    def close(self) -> None:
        """Let calls under way come to their end and give everything back.

        The same happens to a backend that nobody holds any more.
        """
        self._dropped.detach()
        _give_back(self.lifetime, self.cuda)


def _give_back(lifetime: Lifetime, cuda: Cuda) -> None:
    if lifetime.end(_PATIENCE):
        cuda.close()


def _on_processor(artefact: str | None, found: str) -> ScoringError:
    return ScoringError(
        "backend.unavailable",
        "ONNX Runtime cannot run the whole graph on the GPU",
        artefact=artefact,
        expected="a graph that runs on the GPU as a whole",
        found=found,
        cure="use --backend tensorrt or onnxruntime-cpu; a newer onnxruntime-gpu may have what is missing",
    )


def _unavailable(name: str, found: str) -> ScoringError:
    return ScoringError(
        "backend.unavailable",
        "ONNX Runtime cannot use the GPU",
        artefact=name,
        found=found,
        cure="in an environment of its own: pip uninstall onnxruntime, then pip install onnxruntime-gpu and "
        "the CUDA and cuDNN packages that its release names",
    )
