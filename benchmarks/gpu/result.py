"""What a run on a GPU writes: a document with the commit it measured, whose schema is these classes."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import Meta

from benchmarks.result_file import Commit, Date, Milliseconds, Struct
from promptray.runtime.backends import OF_ENGINES

Share = Annotated[float, Meta(ge=0)]
#: Below this many calls no 99th percentile is said: fewer than ten calls would be beyond it.
LEAST_CALLS = 1000


class Latency(Struct, frozen=True, kw_only=True):
    """Host time of calls with one image, from pixels on the host to scores on the host."""

    calls: Annotated[int, Meta(ge=LEAST_CALLS)]
    p50: Milliseconds
    p90: Milliseconds
    p99: Milliseconds


class Throughput(Struct, frozen=True, kw_only=True):
    """Images a second at the batch that gives most of them."""

    batch: Annotated[int, Meta(ge=1)]
    images_per_second: Annotated[float, Meta(gt=0)]
    matrix_rate_share: Share | None
    """Multiply-adds of the model's products over those of the card's measured matrix rate in that type."""


class Row(Struct, frozen=True, kw_only=True):
    """One contestant on one model; a contestant that could not run says why."""

    model: str
    contestant: Literal["torch eager", "torch.compile", "onnxruntime-cuda", "tensorrt", "tensorrt_rtx"]
    precision: str
    version: str | None
    cuda_graph: bool | None
    """None where the contestant decides by itself."""
    latency: Latency | None = None
    throughput: Throughput | None = None
    submit_ms: Latency | None = None
    """Host time until a call has been handed over; None where a call returns with its answer."""
    file_to_score: Latency | None = None
    """From an uncompressed DICOM file to its scores."""
    prepared_file_to_score: Latency | None = None
    """The same with images prepared on the device; None where the set has no engine that does."""
    not_run: str | None = None


class Gpu(Struct, frozen=True, kw_only=True):
    """The card, and what it reaches at most."""

    name: str
    compute_capability: str
    multiprocessors: int
    driver: str
    """Newest CUDA that the driver serves; what a contestant was built with is part of its version."""
    matrix_tflops: dict[str, float]
    """Measured with square products, by type; a multiply-add counts as two."""


class GpuResult(Struct, frozen=True, kw_only=True):
    """All of a result file."""

    schema: Literal["promptray-gpu"] = "promptray-gpu"
    schema_version: Literal[1] = 1
    commit: Commit
    date: Date
    gpu: Gpu
    rows: Annotated[list[Row], Meta(min_length=1)]


def engines_ran(result: GpuResult) -> bool:
    """Tell whether any engine was measured: a run in which none was proves nothing of them."""
    return any(row.contestant in OF_ENGINES and row.latency for row in result.rows)


def latency(milliseconds: Sequence[float]) -> Latency:
    """Return the percentiles of calls: of equally good estimates the longer time.

    Raises
    ------
    ValueError
        For fewer than :data:`LEAST_CALLS`.
    """
    if len(milliseconds) < LEAST_CALLS:
        raise ValueError(f"{len(milliseconds)} calls say nothing of a 99th percentile; {LEAST_CALLS} do")
    ordered = sorted(milliseconds)

    def percentile(share: float) -> float:
        return ordered[min(math.ceil(share * len(ordered)), len(ordered) - 1)]

    return Latency(calls=len(ordered), p50=percentile(0.5), p90=percentile(0.9), p99=percentile(0.99))


def best(rates: dict[int, float], multiply_adds: float, tflops: float | None) -> Throughput:
    """Return the batch with most images a second, the smallest of equals, as a share of the matrix rate.

    Parameters
    ----------
    rates : dict of int to float
        Images a second by batch.
    multiply_adds : float
        Of the model's products for one image.
    tflops : float or None
        The card's, in the model's type; None where it was not measured.
    """
    batch = max(sorted(rates), key=lambda each: rates[each])
    share = None if tflops is None else 2 * multiply_adds * rates[batch] / (tflops * 1e12)
    return Throughput(batch=batch, images_per_second=rates[batch], matrix_rate_share=share)


def file_name(result: GpuResult) -> str:
    """Return ``<gpu>-<date>.json`` in lower case, without spaces."""
    card = re.sub(r"[^a-z0-9]+", "-", result.gpu.name.lower()).strip("-")
    return f"{card}-{result.date}.json"
