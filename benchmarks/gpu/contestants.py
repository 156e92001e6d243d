"""Who is measured, on what, and how the card's own limit is found."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from benchmarks.gpu.cases import Case, bundle_of
from benchmarks.gpu.measure import images_per_second, timed_calls
from benchmarks.gpu.result import Gpu, Row, best
from benchmarks.gpu.torch_runner import TYPES, TorchRunner
from promptray import Scorer
from promptray.calibrate.engines.build import Asked, build_set
from promptray.calibrate.engines.installed import open_library
from promptray.runtime.backends import GpuOptions
from promptray.runtime.bundle import Bundle
from promptray.runtime.engines.facts import Device
from promptray.runtime.engines.store import EngineStore
from promptray.runtime.errors import PromptRayError
from promptray.runtime.golden import read_golden
from promptray.runtime.preprocess import normalise
from promptray.runtime.site import Site

PRECISIONS = ("fp32", "fp16")
SAMPLE = Path(__file__).parents[2] / "examples" / "samples"
_SIDE, _PRODUCTS = 8192, 20


def gpu_facts(device: Device) -> Gpu:
    """Return the card with its measured matrix rates."""
    return Gpu(
        name=device.name,
        compute_capability=device.compute_capability,
        multiprocessors=device.multiprocessors,
        driver=str(torch.version.cuda),
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
    for precision in PRECISIONS:
        yield from engine_rows(case, bundle, "onnxruntime-cuda", precision, pixels, products, gpu)
    for name, compiled in (("torch eager", False), ("torch.compile", True)):
        for precision in PRECISIONS:
            runner = TorchRunner(bundle, recipe, "cuda", precision, compiled=compiled)
            rates = images_per_second(lambda batch, run=runner.run: lambda: run(_repeated(pixels, batch)))
            yield Row(
                model=case.name,
                contestant=name,  # type: ignore[arg-type]
                precision=precision,
                version=torch.__version__,
                cuda_graph=compiled,
                latency=timed_calls(lambda run=runner.run: run(pixels)),
                throughput=best(rates, products, gpu.matrix_tflops[precision]),
            )
    for backend in ("tensorrt", "tensorrt_rtx"):
        for precision in PRECISIONS:
            yield from engine_rows(case, bundle, backend, precision, pixels, products, gpu)


def engine_rows(
    case: Case, bundle: Bundle, backend: str, precision: str, pixels: Any, products: float, gpu: Gpu
) -> Iterator[Row]:
    """Build, gate and measure a set of engines, with and without CUDA graphs."""
    empty = Row(
        model=case.name,
        contestant=backend,
        precision=precision,
        version=None,
        cuda_graph=None,  # type: ignore[arg-type]
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            library = open_library(backend, None)
            store = EngineStore(Site.open(folder, bundle.hash), bundle.manifest)
            build_set(bundle, store, library, Asked(precision=precision), progress=lambda *_: None)
        except PromptRayError as error:
            yield msgspec.structs.replace(empty, not_run=error.message)
            return
        for cuda_graphs in (True, False):
            gpu_options = GpuOptions(cuda_graphs=cuda_graphs)
            with Scorer.open(bundle.path, backend=backend, site=folder, gpu=gpu_options) as scorer:
                sample = next(SAMPLE.glob("*.dcm"))
                rates = images_per_second(lambda batch, own=scorer: _call(own, _repeated(pixels, batch)))
                yield msgspec.structs.replace(
                    empty,
                    version=library.version,
                    cuda_graph=cuda_graphs,
                    latency=timed_calls(_call(scorer, pixels)),
                    throughput=best(rates, products, gpu.matrix_tflops.get(precision)),
                    submit_ms=timed_calls(
                        lambda own=scorer: own.submit_pixels(pixels), settle=lambda pending: pending.result()
                    ),
                    file_to_score=timed_calls(lambda score=scorer.score, film=sample: score(film)),
                )


def _call(scorer: Scorer, pixels: Any) -> Callable[[], object]:
    return lambda: scorer.submit_pixels(pixels).result()


def _repeated(pixels: Any, batch: int) -> Any:
    return np.repeat(pixels, batch, axis=0)
