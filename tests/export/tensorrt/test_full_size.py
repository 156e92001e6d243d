"""Image towers and text sides of the published sizes, with random weights, through TensorRT-RTX.

One build for each family always; every graph in every type for every GPU with ``-m full_size``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import pytest
import torch

from benchmarks.full_size import write_asg, write_biomedclip, write_carzero, write_convnext
from benchmarks.rtx_layers import TARGETS, build, load, typed
from promptray.export.families.base import Side
from promptray.export.onnx_graph import export_graph
from tests.export.tensorrt.graphs import sides_of
from tests.export.tensorrt.test_fusion import check_types
from tests.rtx import needs_rtx

pytestmark = needs_rtx

WRITERS = {
    "carzero": write_carzero,
    "asg": write_asg,
    "biomedclip": write_biomedclip,
    "convnext": write_convnext,
}
#: Graph -> attentions, all fused. ASG's report encoder has six blocks; ConvNeXt has no attention.
ATTENTIONS = {
    "carzero image": 12,
    "asg image": 12,
    "biomedclip image": 12,
    "convnext image": 0,
    "carzero text": 12,
    "asg text": 6,
    "biomedclip text": 12,
}
#: One for each family; the types and GPUs differ, so that each is there once.
ALWAYS = [
    ("carzero image", "int8", "8.6"),
    ("asg image", "fp16", "8.9"),
    ("biomedclip image", "fp8", "8.9"),
    ("convnext image", "fp16", "8.6"),
]
MATRIX = [
    (graph, scheme, target)
    for graph in ATTENTIONS
    for scheme, targets in TARGETS.items()
    for target in targets
]
Export = Callable[[str], tuple[Side, bytes]]


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Export:
    """``export(graph)``; of one graph at a time, since each has some hundred megabytes."""

    @lru_cache(1)
    def exported(graph: str) -> tuple[Side, bytes]:
        name, _, role = graph.partition(" ")
        torch.manual_seed(0)
        folder = tmp_path_factory.mktemp(name)
        side = sides_of(load(folder, WRITERS[name](folder)))[role]
        for path in folder.glob("*.*"):
            path.unlink()
        return side, export_graph(side, graph)

    return exported


def check(export: Export, graph: str, scheme: str, target: str) -> None:
    side, content = export(graph)
    made = typed(content, side, scheme)
    built = build(made.content, side, target)
    check_types(built.layers, side, made, scheme)
    assert sum(layer.is_attention for layer in built.layers) == ATTENTIONS[graph]


@pytest.mark.slow
@pytest.mark.parametrize(("graph", "scheme", "target"), ALWAYS)
def test_each_family_at_its_published_size(export: Export, graph: str, scheme: str, target: str) -> None:
    check(export, graph, scheme, target)


@pytest.mark.slow
@pytest.mark.full_size
@pytest.mark.parametrize(("graph", "scheme", "target"), MATRIX)
def test_every_graph_at_its_published_size(export: Export, graph: str, scheme: str, target: str) -> None:
    check(export, graph, scheme, target)
