"""What a GPU run writes: percentiles that are not too good, the best batch, a document of the schema."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from benchmarks.gpu.result import Gpu, GpuResult, Row, best, engines_ran, file_name, latency
from benchmarks.result_file import document

GPU = Gpu(
    name="NVIDIA H200 NVL", compute_capability="9.0", multiprocessors=132, driver="13.0",
    matrix_tflops={"fp16": 700.0},
)  # fmt: skip
ROW = Row(model="CARZero", contestant="tensorrt", precision="fp16", version="8.6.1", cuda_graph=True)


def result(**changes: Any) -> GpuResult:
    fields: dict[str, Any] = {"commit": "a" * 40, "date": "2026-01-31", "gpu": GPU, "rows": [ROW]}
    return GpuResult(**{**fields, **changes})


def test_percentiles_are_the_longer_of_two_estimates() -> None:
    found = latency([float(number) for number in range(2000, 0, -1)])
    assert (found.calls, found.p50, found.p90, found.p99) == (2000, 1001.0, 1801.0, 1981.0)


def test_few_calls_give_no_99th_percentile() -> None:
    with pytest.raises(ValueError, match="999"):
        latency([1.0] * 999)


def test_the_best_batch_and_its_share_of_the_matrix_rate() -> None:
    found = best({1: 1000.0, 8: 4000.0, 16: 4000.0}, multiply_adds=17.5e9, tflops=700.0)
    assert (found.batch, found.images_per_second) == (8, 4000.0)
    assert found.matrix_rate_share == pytest.approx(2 * 17.5e9 * 4000 / 700e12)
    assert best({1: 5.0}, 1.0, None).matrix_rate_share is None


def test_the_file_is_named_by_card_and_date() -> None:
    assert file_name(result()) == "nvidia-h200-nvl-2026-01-31.json"


def test_the_document_is_of_the_schema() -> None:
    whole = result(rows=[ROW, msgspec.structs.replace(ROW, not_run="TensorRT is not installed")])
    assert msgspec.json.decode(document(whole), type=GpuResult) == whole
    assert json.loads(document(whole))["rows"][1]["not_run"] == "TensorRT is not installed"


def test_a_run_without_engines_is_told_from_one_with() -> None:
    times = latency([1.0] * 1000)
    missing = msgspec.structs.replace(ROW, not_run="TensorRT is not installed")
    torch = msgspec.structs.replace(ROW, contestant="torch eager", latency=times)
    assert not engines_ran(result(rows=[missing, torch]))
    assert engines_ran(result(rows=[missing, torch, msgspec.structs.replace(ROW, latency=times)]))


@pytest.mark.parametrize(
    "changes",
    [
        {"commit": "main"}, {"commit": "a" * 40 + "\n"}, {"date": "31.1.2026"}, {"rows": []},
        {"rows": [msgspec.structs.replace(ROW, contestant="another")]},
        {"gpu": msgspec.structs.replace(GPU, matrix_tflops={"fp16": "fast"})},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_a_document_that_is_not_of_the_schema_is_not_written(changes: dict[str, Any]) -> None:
    with pytest.raises(msgspec.ValidationError):
        document(result(**changes))
