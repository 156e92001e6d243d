"""Where Q/DQ pairs stand, what they hold, and that ONNX Runtime's own quantiser gives the same."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from promptray.calibrate.quantise import Float8, Int8, quantise
from promptray.calibrate.quantise.graph import Graph
from promptray.calibrate.quantise.layers import low_layers
from promptray.calibrate.quantise.qdq import E4M3, INT8, quantise_weight, scale_of
from promptray.calibrate.quantise.session import open_session

HIGH = {"Add", "LayerNormalization", "Softmax", "Gelu", "Mul", "ReduceMean"}


def parts(content: bytes) -> tuple[onnx.GraphProto, dict[str, Any], dict[str, Any]]:
    graph = onnx.load_from_string(content).graph
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    return graph, constants, {name: node for node in graph.node for name in node.output}


def pictures(reference: Any, count: int = 4) -> Any:
    return reference.feeds[:count]


@pytest.fixture(scope="module", params=["reference", "convnext_image"])
def quantised(request: pytest.FixtureRequest) -> tuple[bytes, bytes]:
    if request.param == "reference":
        model = request.getfixturevalue("reference")
        content, feeds = model.graphs["image"], model.feeds[:4]
    else:
        content = request.getfixturevalue("convnext_image")
        feeds = [{"pixels": np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)}]
    return content, quantise(content, Int8(), feeds).content


def test_every_pair_belongs_to_a_linear_layer_and_nothing_else_has_one(
    quantised: tuple[bytes, bytes],
) -> None:
    before, after = quantised
    graph, _, made_by = parts(after)
    expected = {layer.node.name for layer in low_layers(Graph(before))[0]}
    paired = {name for name, node in made_by.items() if node.op_type == "DequantizeLinear"}
    for node in graph.node:
        read = [name for name in node.input if name in paired]
        # Not residual sums, normalisation, softmax, activation functions, attention, depthwise convolutions.
        assert read == (list(node.input[:2]) if node.name in expected else [])
    assert {node.op_type for node in graph.node} & HIGH
    assert {value.name for value in graph.output}.isdisjoint(
        name for node in graph.node if "quantize" in node.op_type.lower() for name in node.output
    )


def test_weights_have_a_scale_for_each_output_channel_and_activations_one(
    quantised: tuple[bytes, bytes],
) -> None:
    before, after = quantised
    graph, constants, made_by = parts(after)
    layers = {layer.node.name: layer for layer in low_layers(Graph(before))[0]}
    for node in graph.node:
        if node.name not in layers:
            continue
        layer = layers[node.name]
        activation, weight = (made_by[name] for name in node.input[:2])
        numbers, scales = constants[weight.input[0]], constants[weight.input[1]]
        axis = next(item.i for item in weight.attribute if item.name == "axis")
        assert axis == layer.channel_axis
        assert numbers.dtype == np.int8
        assert np.abs(numbers.astype(int)).max() == 127
        assert scales.shape == (layer.weight.shape[axis],)
        assert len(weight.input) == 2  # no zero point: symmetric
        assert constants[activation.input[1]].shape == ()
        assert constants[activation.input[2]] == 0
        shape = [-1 if number == axis else 1 for number in range(numbers.ndim)]
        steps = scales.reshape(shape)
        assert (np.abs(numbers * steps - layer.weight) <= 0.5 * steps + 1e-9).all()


def input_scales(content: bytes) -> dict[str, list[float]]:
    graph, constants, _ = parts(content)
    scales: dict[str, list[float]] = {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            scales.setdefault(node.input[0], []).append(float(constants[node.input[1]]))
    return scales


def test_for_gpus_those_pairs_are_equal(reference: Any) -> None:
    """TensorRT merges them, and then the products behind them."""
    scheme = Int8(rest="float16")
    scales = input_scales(quantise(reference.graphs["text"], scheme, reference.text_feeds[:1]).content)
    assert max(len(each) for each in scales.values()) >= 3
    assert all(len(set(each)) == 1 for each in scales.values())


def test_layers_that_read_one_tensor_have_pairs_of_their_own(reference: Any) -> None:
    """Query, key and value of a BERT: equal pairs would be merged, and floats multiplied, by ONNX Runtime."""
    made = quantise(reference.graphs["text"], Int8(calibration="max"), reference.text_feeds[:1])
    scales = input_scales(made.content)
    assert sum(len(each) for each in scales.values()) == len(made.report.quantised)
    shared = [each for each in scales.values() if len(each) > 1]
    assert max(len(each) for each in shared) >= 3
    for each in shared:
        assert len(set(each)) == len(each)
        assert max(each) <= min(each) * (1 + len(each) * 2**-10)


def test_biases_stay_float32(quantised: tuple[bytes, bytes]) -> None:
    _, constants, _ = parts(quantised[1])
    low = {name: array for name, array in constants.items() if array.dtype not in ("f4", "i8")}
    assert {array.dtype.name for array in low.values()} <= {"int8", "float16"}
    # Weights, their inputs' zero, and positions.
    assert all(array.ndim in (0, 2, 4) or "pos_embed" in name for name, array in low.items())


class Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Any) -> None:
        self.feeds = iter([feeds[number] for number in range(len(feeds))])

    def get_next(self) -> Any:
        return next(self.feeds, None)


def by_onnxruntime(content: bytes, feeds: Any, **options: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "quantised.onnx"
        quantize_static(
            onnx.load_from_string(content), path, Reader(feeds), quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, **options,
        )  # fmt: skip
        return path.read_bytes()


def test_onnxruntimes_static_quantiser_gives_the_same(reference: Any) -> None:
    """Same places, same integers but for scales rounded to float16, same scores."""
    operators = ["MatMul", "Gemm", "Conv"]
    graph = Graph(reference.graphs["image"])
    theirs = by_onnxruntime(
        graph.to_bytes(), reference.feeds, per_channel=True, op_types_to_quantize=operators,
        nodes_to_quantize=[layer.node.name for layer in low_layers(graph)[0]],
        extra_options={
            "ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False,
            "OpTypesToExcludeOutputQuantization": operators,
        },
    )  # fmt: skip
    ours = quantise(reference.graphs["image"], Int8(calibration="max"), reference.feeds).content
    mine, their = (parts(content) for content in (ours, theirs))
    for node in mine[0].node:
        if node.op_type not in operators:
            continue
        other = next(each for each in their[0].node if each.name == node.name)
        for position in (0, 1):
            a, b = (side[2].get(each.input[position]) for side, each in ((mine, node), (their, other)))
            assert (a is None) == (b is None) or a.op_type == b.op_type
            if a is None or a.op_type != "DequantizeLinear":
                continue
            # float16 has 11 bits; four layers read the last normalisation.
            np.testing.assert_allclose(mine[1][a.input[1]], np.squeeze(their[1][b.input[1]]), rtol=5 * 2**-11)
            if position:
                gap = mine[1][a.input[0]].astype(int) - their[1][b.input[0]].astype(int)
                assert np.abs(gap).max() <= 1
    assert abs(reference.error(ours) - reference.error(theirs)) < 0.02


def test_everything_int8_is_far_worse(reference: Any) -> None:
    """What the tool does unless it is told otherwise: also residual sums, normalisation and softmax."""
    broken = by_onnxruntime(reference.graphs["image"], reference.feeds)
    right = quantise(reference.graphs["image"], Int8(), reference.feeds).content
    assert reference.error(right) < 0.05
    assert reference.error(broken) > 20 * reference.error(right)


def test_scales_are_numbers_of_float16_that_cover_the_range() -> None:
    magnitudes = np.concatenate([np.logspace(-6, 3, 500), [0]])
    scales = scale_of(magnitudes, INT8)
    np.testing.assert_array_equal(scales, scales.astype(np.float16).astype(np.float32))
    assert (scales * 127 >= magnitudes).all()
    assert (scales[:-1] * 127 <= magnitudes[:-1] * (1 + 2**-10) + 127 * 2**-24).all()
    assert scales[-1] == 1


@pytest.mark.parametrize("form", [INT8, E4M3])
def test_a_channel_of_zeros_stays_zero(form: Any) -> None:
    weight = np.zeros((4, 3), np.float32)
    weight[:, 1] = [1, -2, 3, -4]
    numbers, scales = quantise_weight(weight, 1, form)
    back = numbers.astype(np.float32) * scales
    assert np.isfinite(back).all()
    np.testing.assert_allclose(back, weight, rtol=0.07, atol=0.02)


def test_float8_runs_where_the_report_says_and_only_there(reference: Any) -> None:
    made = quantise(reference.graphs["image"], Float8(), pictures(reference))
    _, constants, _ = parts(made.content)
    assert sum(array.dtype == E4M3.dtype for array in constants.values()) > 10
    assert made.report.optimisations == ["none", "basic"]
    for level in made.report.optimisations:
        open_session(made.content, level)  # type: ignore[arg-type]
    with pytest.raises(Exception, match="optimisation all"):
        open_session(made.content, "all")
    assert reference.error(made.content) < 0.1
