"""Which nodes count as linear layers, and what they are called."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from onnx import helper

from promptray.calibrate.quantise.graph import Graph
from promptray.calibrate.quantise.layers import LEAST_WEIGHTS, group_of, linear_layers
from promptray.runtime.errors import BuildError


def test_a_transformer_has_its_checkpoints_names_block_by_block(reference: Any) -> None:
    layers, kept = linear_layers(Graph(reference.graphs["image"]))
    names = [layer.name for layer in layers]
    assert names[:5] == [
        "encoder.model.patch_embed.proj",
        *(f"encoder.model.blocks.0.{part}" for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")),
    ]
    groups = Counter(layer.group for layer in layers)
    assert groups["encoder.model.blocks.1"] == 4
    assert kept == {}
    # Attention's own products have two activations and are no layers.
    assert all(layer.weight_name in Graph(reference.graphs["image"]).constants for layer in layers)


def test_projections_that_were_slices_of_a_larger_weight_are_layers(reference: Any) -> None:
    names = [layer.name for layer in linear_layers(Graph(reference.graphs["image"]))[0]]
    assert names.count("fusion.decoder.layers.1.multihead_attn.in_proj") == 1
    head = linear_layers(Graph(reference.graphs["head"]))
    assert any("multihead_attn" in layer.name for layer in head[0])
    assert any("too few" in reason for reason in head[1].values())


def test_the_depthwise_convolutions_of_a_convnext_are_none(convnext_image: bytes) -> None:
    layers, kept = linear_layers(Graph(convnext_image))
    depthwise = {name for name, reason in kept.items() if "depthwise" in reason}
    assert len(depthwise) == 8
    assert all("conv_dw" in name for name in depthwise)
    assert {layer.node.op_type for layer in layers} == {"Conv", "MatMul"}
    groups = {layer.name: layer.group for layer in layers}
    assert groups["model.stages.1.blocks.0.mlp.fc1"] == "model.stages.1.blocks.0"
    assert groups["model.stages.1.downsample.1"] == "model.stages.1"


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("encoder.model.blocks.11.mlp.fc1", "encoder.model.blocks.11"),
        ("bert.encoder.layer.2.attention.self.query", "bert.encoder.layer.2"),
        ("to_global.2", "to_global"),
        ("patch_embed.proj", "patch_embed.proj"),
        ("node_MatMul_3", "node_MatMul_3"),
    ],
)
def test_groups(name: str, group: str) -> None:
    assert group_of(name) == group


def test_channels_lie_where_the_operator_has_them(build: Any) -> None:
    wide = LEAST_WEIGHTS // 8
    weights = {"a": np.ones((8, wide), np.float32), "b": np.ones((16, wide), np.float32)}
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["m"], "first"),
        helper.make_node("Gemm", ["m", "b"], ["y"], "second", transB=1),
    ]
    layers, _ = linear_layers(Graph(build(nodes, weights, 8)))
    assert [(layer.node.op_type, layer.channel_axis) for layer in layers] == [("MatMul", 1), ("Gemm", 0)]


@pytest.mark.parametrize("content", [b"", b"no graph", b"\x08\x0a" * 40])
def test_other_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(BuildError) as caught:
        Graph(content)
    assert caught.value.code == "quantise.graph"


def test_a_graph_that_was_quantised_for_one_runtime_is_refused(build: Any) -> None:
    nodes = [helper.make_node("Gelu", ["x"], ["y"], "n")]
    content = build(nodes, {}, 4)
    import onnx

    model = onnx.load_from_string(content)
    model.graph.node[0].domain = "com.microsoft"
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    with pytest.raises(BuildError, match=r"com\.microsoft") as caught:
        Graph(model.SerializeToString())
    assert caught.value.code == "quantise.graph"
