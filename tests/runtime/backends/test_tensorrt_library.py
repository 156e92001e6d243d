"""The real TensorRT-RTX, as far as it goes without a GPU: its names, its log, its refusals in our words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from promptray.runtime.backends.choice import engine_version
from promptray.runtime.backends.cuda import Cuda
from promptray.runtime.backends.tensorrt_engine import Engine, Library, load_library
from promptray.runtime.bundle import Bundle
from promptray.runtime.errors import ScoringError
from tests.fake_cuda import simulated
from tests.rtx import needs_rtx

pytestmark = needs_rtx


def test_its_version_is_read() -> None:
    assert engine_version("tensorrt_rtx").startswith("1.")


def test_a_plan_that_is_none_is_refused_in_its_own_words(miniature: Bundle) -> None:
    graph = miniature.manifest.graph("image")
    assert graph
    with simulated() as gpu:
        library = Library("tensorrt_rtx", Cuda())
        with pytest.raises(ScoringError) as refusal:
            Engine(library, b"no plan of any version", graph)
        assert refusal.value.code == "backend.failed"
        assert "tensorrt_rtx 1." in refusal.value.message
        assert "the engine of the image graph cannot be loaded: " in refusal.value.message
        said = refusal.value.message.rpartition("loaded: ")[2]
        assert len(said) > 10, "what TensorRT said is there"
        library.cuda.close()
        gpu.assert_clean()


@pytest.mark.parametrize(
    ("owner", "names"),
    [
        ("ICudaEngine", ["num_io_tensors", "num_optimization_profiles", "get_tensor_name", "get_tensor_mode",
                         "get_tensor_dtype", "get_tensor_shape", "get_tensor_profile_shape",
                         "create_execution_context"]),
        ("IExecutionContext", ["set_optimization_profile_async", "set_input_shape", "get_tensor_shape",
                               "set_tensor_address", "execute_async_v3"]),
        ("ICudaEngine", ["create_runtime_config"]),
        ("IRuntimeConfig", ["dynamic_shapes_kernel_specialization_strategy", "create_runtime_cache",
                            "set_runtime_cache"]),
        ("DynamicShapesKernelSpecializationStrategy", ["EAGER", "NONE"]),
        ("Runtime", ["deserialize_cuda_engine"]),
        ("TensorIOMode", ["INPUT", "OUTPUT"]),
    ],
)  # fmt: skip
def test_every_name_that_is_used_exists(owner: str, names: list[str]) -> None:
    trt: Any = load_library("tensorrt_rtx")
    assert [name for name in names if not hasattr(getattr(trt, owner), name)] == []
    assert np.dtype(trt.nptype(trt.DataType.FLOAT)) == np.float32
    assert np.dtype(trt.nptype(trt.DataType.HALF)) == np.float16
    assert trt.ILogger.Severity.INTERNAL_ERROR <= trt.ILogger.Severity.ERROR
    assert not trt.ILogger.Severity.WARNING <= trt.ILogger.Severity.ERROR
