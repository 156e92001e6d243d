"""Changed graphs in tools other than ONNX Runtime: OpenVINO runs them here, TensorRT-RTX compiles them here.

No data-centre TensorRT can be installed without a GPU; RTX shares its parser and rules for typed networks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

from promptray.calibrate.quantise import Float8, Float16, Int8, Quantised, Scheme, quantise
from promptray.calibrate.quantise.feeds import head_feeds
from promptray.calibrate.quantise.session import open_session
from promptray.export.tensorrt import Profile, build_engine, load_flavour
from promptray.runtime.backends.openvino_library import load_library
from promptray.runtime.engines.facts import Settings
from promptray.runtime.errors import BuildError
from tests.rtx import needs_rtx

Graphs = dict[str, tuple[bytes, list[Any]]]


@pytest.fixture(scope="module")
def graphs(reference: Any, convnext_image: bytes) -> Graphs:
    """Graphs with real inputs of them."""
    content = reference.graphs
    heads = head_feeds(content["image"], reference.bank, reference.feeds[:3])
    taken = {value.name for value in open_session(content["head"]).get_inputs()}
    side = open_session(convnext_image).get_inputs()[0].shape[2]
    levels = [np.repeat(feed["pixels"][:, :, :side, :side], 3, axis=1) for feed in reference.feeds[:4]]
    return {
        "image": (content["image"], list(reference.feeds[:4])),
        "head": (content["head"], [{name: feed[name] for name in taken} for feed in heads]),
        "text": (content["text"], reference.text_feeds[:4]),
        "convnext": (convnext_image, [{"pixels": each} for each in levels]),
    }


SCHEMES: dict[str, Scheme] = {
    "int8": Int8(),
    "int8-float16": Int8(rest="float16"),
    "fp8": Float8(),
    "fp8-float16": Float8(rest="float16"),
    "fp16": Float16(),
}
Make = Callable[[str, str], Quantised]


@pytest.fixture(scope="module")
def make(graphs: Graphs) -> Make:
    """``make(role, scheme)``."""
    return lru_cache(None)(lambda role, scheme: quantise(graphs[role][0], SCHEMES[scheme], graphs[role][1]))


def products(content: bytes, feed: Mapping[str, Any], target: str) -> Counter[tuple[str, ...]]:
    """Build for one GPU and for calls of the shapes of `feed`; count products by their operands' types."""
    shapes = {name: (np.shape(values),) * 3 for name, values in feed.items()}
    rtx = load_flavour("tensorrt_rtx")
    built = build_engine(content, [Profile(shapes)], Settings(), rtx, targets=[target])
    return Counter(layer.operands for layer in built.layers if layer.is_product)


HALF, SINGLE, INT8, FP8 = (("Half",) * 2, ("Float",) * 2, ("Int8",) * 2, ("FP8",) * 2)


@pytest.mark.parametrize("target", ["8.6", "8.9"])
@pytest.mark.parametrize("role", ["image", "head", "text", "convnext"])
@pytest.mark.parametrize("scheme", ["int8-float16", "fp16"])
@needs_rtx
def test_tensorrt_rtx_compiles_what_is_made_for_gpus(
    graphs: Graphs, make: Make, role: str, scheme: str, target: Any
) -> None:
    made = make(role, scheme)
    found = products(made.content, graphs[role][1][0], target)
    if scheme == "fp16":
        assert set(found) == {HALF}
    else:  # projections of one input may become one product
        assert 0 < found[INT8] <= len(made.report.quantised)


@pytest.mark.parametrize("role", ["image", "head", "convnext"])
@needs_rtx
def test_tensorrt_rtx_compiles_int8_for_cpus_too(graphs: Graphs, make: Make, role: str) -> None:
    made = make(role, "int8")
    found = products(made.content, graphs[role][1][0], "8.6")
    assert 0 < found[INT8] <= len(made.report.quantised)
    assert set(found) <= {INT8, SINGLE}


@needs_rtx
def test_int8_rows_are_for_cpus(graphs: Graphs, make: Make) -> None:
    with pytest.raises(BuildError, match=r"table of int8 rows is for ONNX Runtime.*word_embeddings"):
        products(make("text", "int8").content, graphs["text"][1][0], "8.6")


@pytest.mark.parametrize("scheme", ["fp8", "fp8-float16"])
@needs_rtx
def test_float8_is_for_gpus_that_have_it(graphs: Graphs, make: Make, scheme: str) -> None:
    made, feed = make("image", scheme), graphs["image"][1][0]
    assert 0 < products(made.content, feed, "8.9")[FP8] <= len(made.report.quantised)
    with pytest.raises(BuildError, match=r"float8 needs a GPU of compute capability 8\.9"):
        products(made.content, feed, "8.6")


# OpenVINO's difference from what a graph means, in what quantisation itself changed (root mean squares).
# Measured: at most 0.80, 2.1 and 1.1.
@pytest.mark.parametrize("role", ["image", "head", "text", "convnext"])
@pytest.mark.parametrize(("scheme", "most"), [("int8", 1.0), ("int8-float16", 3.0), ("fp16", 1.5)])
def test_openvino_computes_nearly_what_the_graph_means(
    graphs: Graphs, make: Make, role: str, scheme: str, most: float
) -> None:
    content, (feed, *_) = graphs[role]
    made = make(role, scheme).content
    core = load_library().Core()
    exact = {"INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY"}
    model = core.compile_model(core.read_model(made), "CPU", exact)
    found = list(model(dict(feed)).values())
    meant, original = (open_session(each, "none").run(None, dict(feed)) for each in (made, content))
    for ours, theirs, before in zip(found, meant, original, strict=True):
        assert _rms(ours - theirs) <= most * _rms(theirs - before)


def _rms(values: Any) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))
