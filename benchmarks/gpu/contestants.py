"""Who is measured, on what, and how the card's own limit is found."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.gpu.cases import SAMPLES, Case, bundle_of
from benchmarks.gpu.measure import images_per_second, timed_calls
from benchmarks.gpu.result import Gpu, Latency, Row, best
from benchmarks.gpu.torch_runner import TYPES, TorchRunner
from promptray import Scorer
from promptray.calibrate.engines.build import Asked, build_set
from promptray.calibrate.engines.installed import open_library
from promptray.cli.doctor_gpu import driver
from promptray.runtime.backends import GpuOptions
from promptray.runtime.bundle import Bundle
from promptray.runtime.engines.facts import Device, EngineBackend
from promptray.runtime.engines.store import EngineStore
from promptray.runtime.errors import PromptRayError
from promptray.runtime.golden import read_golden
from promptray.runtime.preprocess import normalise
from promptray.runtime.site import Site

PRECISIONS = ("fp32", "fp16")
TENSORRTS: tuple[EngineBackend, ...] = ("tensorrt", "tensorrt_rtx")
_SIDE, _PRODUCTS = 8192, 20


def gpu_facts(device: Device) -> Gpu:
    """Return the card with its measured matrix rates."""
    return Gpu(
        name=device.name,
        compute_capability=device.compute_capability,
        multiprocessors=device.multiprocessors,
        driver=driver(),
        matrix_tflops={name: matrix_tflops(dtype) for name, dtype in TYPES.items()},
    )


def matrix_tflops(dtype: torch.dtype) -> float:
    """Measure the rate of large square products, TF32 off."""
    torch.backends.cuda.matmul.allow_tf32 = False
    one = torch.randn(_SIDE, _SIDE, device="cuda", dtype=dtype)
    other = torch.randn(_SIDE, _SIDE, device="cuda", dtype=dtype)

    def products() -> None:
        for _ in range(_PRODUCTS):
            one @ other
        torch.cuda.synchronize()

    (rate,) = images_per_second(lambda batch: products, (1,)).values()
    return 2 * _SIDE**3 * _PRODUCTS * rate / 1e12


def rows_of(case: Case, work: Path, gpu: Gpu) -> Iterator[Row]:
    """Measure one model with every contestant: ONNX Runtime, then torch, TensorRT last."""
    bundle, recipe = bundle_of(case, work)
    pixels = normalise(read_golden(bundle).pictures[:1], bundle.manifest.preprocessing)
    products = TorchRunner(bundle, recipe, "cuda", "fp32").multiply_adds(pixels)
    measured = Measured(case, bundle, pixels, products, gpu)
    for precision in PRECISIONS:
        yield from measured.engines("onnxruntime-cuda", precision)
    for compiled in (False, True):
        for precision in PRECISIONS:
            runner = TorchRunner(bundle, recipe, "cuda", precision, compiled=compiled)
            yield measured.torch(runner, precision, compiled=compiled)
    for backend in TENSORRTS:
        for precision in PRECISIONS:
            yield from measured.engines(backend, precision)


@dataclass(frozen=True)
class Measured:
    """A model, with what all contestants need to be measured on it.

    Attributes
    ----------
    pixels : float32 (1, channels, height, width)
    products : float
        Multiply-adds of one image.
    """

    case: Case
    bundle: Bundle
    pixels: NDArray[np.float32]
    products: float
    gpu: Gpu

    def torch(self, runner: TorchRunner, precision: str, *, compiled: bool) -> Row:
        """Measure the original modules."""
        calls = partial(_repeated_call, runner.run, self.pixels)
        rates = images_per_second(calls)
        return Row(
            model=self.case.name,
            contestant="torch.compile" if compiled else "torch eager",
            precision=precision,
            version=torch.__version__,
            cuda_graph=compiled,
            latency=timed_calls(calls(1)),
            throughput=best(rates, self.products, self.gpu.matrix_tflops[precision]),
        )

    def engines(self, backend: EngineBackend, precision: str) -> Iterator[Row]:
        """Build, gate and measure a set of engines, with and without CUDA graphs."""
        empty = Row(
            model=self.case.name, contestant=backend, precision=precision, version=None, cuda_graph=None
        )
        with tempfile.TemporaryDirectory() as folder:
            try:
                library = open_library(backend, None)
                store = EngineStore(Site.open(folder, self.bundle.hash), self.bundle.manifest)
                built = build_set(self.bundle, store, library, Asked(precision=precision), progress=_silent)
            except PromptRayError as error:
                yield msgspec.structs.replace(empty, not_run=error.message)
                return
            for cuda_graphs in (True, False):
                options = GpuOptions(cuda_graphs=cuda_graphs)
                with Scorer.open(self.bundle.path, backend=backend, site=folder, gpu=options) as scorer:
                    row = msgspec.structs.replace(empty, version=library.version, cuda_graph=cuda_graphs)
                    scored = self._scored(row, scorer)
                if built.facts.prepares:
                    preparing = Scorer.open(
                        self.bundle.path, backend=backend, site=folder, gpu=options, prepare="device"
                    )
                    with preparing as scorer:
                        scored = msgspec.structs.replace(
                            scored, prepared_file_to_score=_file_to_score(scorer)
                        )
                yield scored

    def _scored(self, row: Row, scorer: Scorer) -> Row:
        def run(pixels: NDArray[np.float32]) -> object:
            return scorer.submit_pixels(pixels).result()

        calls = partial(_repeated_call, run, self.pixels)
        return msgspec.structs.replace(
            row,
            latency=timed_calls(calls(1)),
            throughput=best(
                images_per_second(calls), self.products, self.gpu.matrix_tflops.get(row.precision)
            ),
            submit_ms=None if row.contestant == "onnxruntime-cuda" else self._submitted(scorer),
            file_to_score=_file_to_score(scorer),
        )

    def _submitted(self, scorer: Scorer) -> Latency:
        """Time until a call is handed over; its answer is waited for outside of that."""
        return timed_calls(
            partial(scorer.submit_pixels, self.pixels), settle=lambda pending: pending.result()
        )


def _file_to_score(scorer: Scorer) -> Latency:
    return timed_calls(partial(scorer.score, next(SAMPLES.glob("*.dcm"))))


def _repeated_call(
    run: Callable[[NDArray[np.float32]], object], pixels: NDArray[np.float32], batch: int
) -> Callable[[], object]:
    return partial(run, np.repeat(pixels, batch, axis=0))


def _silent(stage: str, message: str, fraction: float) -> None:
    """Show no progress: what is measured prints its own lines."""
