"""One rule says what a TensorRT is given, for the builder and for the runtime."""

from __future__ import annotations

import pytest

from promptray.export.tensorrt.flavour import Flavour
from promptray.runtime.backends.tensorrt_engine import load_library
from promptray.runtime.engines.libraries import is_promised, newest_opset
from promptray.runtime.errors import ScoringError
from tests.fake_tensorrt import simulated_tensorrt


@pytest.mark.parametrize(
    ("name", "version", "promised", "opset"),
    [
        ("tensorrt", "8.5.3.1", False, 17),
        ("tensorrt", "8.6.1", True, 17),
        ("tensorrt", "9.2.0", False, 17),
        ("tensorrt", "10.0.1", False, 20),
        ("tensorrt", "10.3.0", True, 20),
        ("tensorrt", "11.4.0.106", True, 20),
        ("tensorrt_rtx", "0.9.1", False, 20),
        ("tensorrt_rtx", "1.7.1.116", True, 20),
        ("tensorrt", "of no kind", False, 17),
    ],
)
def test_builder_and_runtime_have_one_rule(name: str, version: str, promised: bool, opset: int) -> None:
    assert is_promised(name, version) is promised
    assert newest_opset(name, version) == opset
    assert Flavour(name, name, version).newest_opset == opset  # type: ignore[arg-type]
    with simulated_tensorrt(flavour=name, version=version):
        if promised:
            assert load_library(name).__version__ == version
            return
        with pytest.raises(ScoringError, match=r"is not written for.*expected .* or newer") as refused:
            load_library(name)
    assert (refused.value.code, refused.value.found) == ("backend.unavailable", version)


def test_onnx_runtime_reads_the_newest_operators() -> None:
    assert newest_opset("onnxruntime-cuda", "1.22.1") == 20
