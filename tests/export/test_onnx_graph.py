"""A side of a model as an ONNX graph: torch's answers at any size, what it declares, no notes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from google.protobuf.message import Message
from torch import Tensor, nn

from promptray.export.families.base import Side, tensor
from promptray.export.model_facts import OPSET
from promptray.export.onnx_graph import export_graph
from promptray.runtime.bundle.manifest import TensorFacts
from promptray.runtime.errors import BuildError

ROWS = tensor("rows", "batch", "count", 8)


class Scores(nn.Module):
    """Rows -> each row's score against the mean of all."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, rows: Tensor) -> tuple[Tensor]:
        hidden = nn.functional.gelu(self.linear(self.norm(rows)))
        return (hidden @ hidden.mean(dim=1, keepdim=True).transpose(1, 2),)


class ThreeMeans(nn.Module):
    def forward(self, rows: Tensor) -> tuple[Tensor]:
        return (rows.mean(dim=1, keepdim=True).expand(-1, 3, -1),)


class DataDependent(nn.Module):
    def forward(self, rows: Tensor) -> tuple[Tensor]:
        return (rows if rows.sum() > 0 else -rows,)


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(0)
    return Scores().eval()


@pytest.fixture(scope="module")
def content(module: nn.Module) -> bytes:
    return export_graph(Side(module, [ROWS], [tensor("scores", "batch", "count", 1)]), "scores")


def messages(one: Message) -> Iterator[Message]:
    """Yield a message and all that are within it."""
    yield one
    for field, value in one.ListFields():
        if isinstance(value, Message):
            yield from messages(value)
        elif field.message_type is not None:
            for each in value:
                yield from messages(each)


@pytest.mark.parametrize("shape", [(1, 1, 8), (2, 9, 8), (4, 3, 8)])
def test_the_graph_gives_the_answers_of_torch_at_every_size(
    module: nn.Module, content: bytes, shape: tuple[int, int, int]
) -> None:
    rows = np.random.default_rng(0).standard_normal(shape, np.float32)
    (found,) = ort.InferenceSession(content).run(None, {"rows": rows})
    np.testing.assert_allclose(found, module(torch.from_numpy(rows))[0].detach(), rtol=0, atol=1e-5)


def test_the_graph_is_of_the_promised_opset(content: bytes) -> None:
    (opset,) = onnx.load_from_string(content).opset_import
    assert (opset.domain, opset.version) == ("", OPSET)


def test_the_graph_holds_no_notes_of_how_it_was_made(content: bytes) -> None:
    model = onnx.load_from_string(content)
    for message in messages(model):
        for note in ("metadata_props", "doc_string"):
            assert not getattr(message, note, None), f"{note} of a {type(message).__name__}"
    assert str(Path(torch.__file__).parent).encode() not in content


def test_shapes_on_the_way_are_left_to_who_runs_the_graph(content: bytes) -> None:
    assert not onnx.load_from_string(content).graph.value_info


def test_two_exports_are_the_same_bytes(module: nn.Module, content: bytes) -> None:
    assert content == export_graph(Side(module, [ROWS], [tensor("scores", "batch", "count", 1)]), "scores")


@pytest.mark.parametrize(
    ("declared", "problem"),
    [
        (tensor("means", "batch", "count", 8), "dimension count of means was fixed to 3"),
        (tensor("means", "batch", 8), "expected tensors"),
    ],
)
def test_outputs_that_are_not_what_the_side_declares_are_refused(declared: TensorFacts, problem: str) -> None:
    with pytest.raises(BuildError, match=problem) as raised:
        export_graph(Side(ThreeMeans(), [ROWS], [declared]), "means")
    assert raised.value.code == "export.failed"
    assert "the means graph" in str(raised.value)


def test_what_no_graph_can_say_is_refused_without_the_colours_of_a_terminal() -> None:
    with pytest.raises(BuildError, match="the signed graph") as raised:
        export_graph(Side(DataDependent(), [ROWS], [tensor("out", "batch", "count", 8)]), "signed")
    assert raised.value.code == "export.failed"
    assert "\x1b" not in str(raised.value)
