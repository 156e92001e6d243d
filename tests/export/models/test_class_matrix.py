"""The heads of dual encoders and classifiers are one product, in torch and exported."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from promptray.export.families.base import Side, answers, tensor
from promptray.export.models.class_matrix import ClassMatrix, ClassScores
from promptray.export.onnx_graph import OPSET, export_graph
from promptray.runtime.backends.onnxruntime import OnnxRuntimeCpu
from promptray.runtime.bundle.manifest import Graph

GRID, WIDTH = (2, 3), 8
IMAGE = [tensor("image_vector", "batch", WIDTH), tensor("patch_vectors", "batch", 6, WIDTH)]
BANK = [tensor("class_vector", "prompts", WIDTH), tensor("class_bias", "prompts")]


@pytest.mark.parametrize("maps", [True, False])
@pytest.mark.parametrize("own_bias", [True, False])
@pytest.mark.parametrize(("scale", "bias"), [(None, None), (112.5, -16.5)])
def test_an_exported_head_is_the_product(
    maps: bool, own_bias: bool, scale: float | None, bias: float | None
) -> None:
    """With and without map, a class bias of the bank, and a scale and bias of the model."""
    numbers = [None if each is None else torch.tensor(each) for each in (scale, bias)]
    module = ClassMatrix(GRID, *numbers) if maps else ClassScores(*numbers)
    inputs = [*(IMAGE if maps else IMAGE[:1]), *(BANK if own_bias else BANK[:1])]
    outputs = answers(GRID) if maps else answers()
    content = export_graph(Side(module.eval(), inputs, outputs), "head")
    graph = Graph(
        role="head", file="head.onnx", precision="fp32", opset=OPSET, inputs=inputs, outputs=outputs,
        consumers=["onnxruntime-cpu"], head="prompts",
    )  # fmt: skip
    bound = OnnxRuntimeCpu(threads=1).load(lambda: content, graph).bind({})
    draw = np.random.default_rng(3)
    for images, findings in ((1, 1), (3, 5)):
        sizes = {"batch": images, "prompts": findings}
        given: dict[str, Any] = {
            each.name: draw.normal(size=[sizes.get(str(dim), dim) for dim in each.dims]).astype(np.float32)
            for each in inputs
        }
        found = bound.run(given)
        expected = given["image_vector"] @ given["class_vector"].T * np.float32(1 if scale is None else scale)
        expected = expected + given.get("class_bias", 0) + (bias or 0)
        np.testing.assert_allclose(found["logits"], expected, rtol=1e-5, atol=1e-4)
        assert ("maps" in found) == maps
        if maps:
            cells = given["class_vector"] @ given["patch_vectors"].transpose(0, 2, 1)
            np.testing.assert_allclose(
                found["maps"], cells.reshape(images, findings, *GRID), rtol=1e-5, atol=1e-5
            )
