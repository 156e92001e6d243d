"""A checkpoint in the safetensors format: read as it is, and refused whatever byte of its header is wrong."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import safetensors.torch
import torch

from promptray.export.checkpoint import load_checkpoint
from promptray.export.safetensors_checkpoint import METADATA, stated_list
from promptray.runtime.errors import BuildError


def saved(path: Path) -> dict[str, torch.Tensor]:
    base = torch.arange(24.0).reshape(4, 6)
    dtypes = [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool]
    content = {str(dtype): base.to(dtype) for dtype in dtypes}
    content |= {"weight": base, "scalar": torch.tensor(2.5), "empty": torch.empty(3, 0)}
    safetensors.torch.save_file(content, path, {"classes": '["a", "b"]'})
    return content


def test_tensors_and_texts_are_those_that_were_saved(tmp_path: Path) -> None:
    expected = saved(tmp_path / "model.bin")  # the content tells the format, not the name
    content = load_checkpoint(tmp_path / "model.bin")
    assert content.pop(METADATA) == {"classes": '["a", "b"]'}
    assert content.keys() == expected.keys()
    for name, tensor in expected.items():
        assert content[name].dtype == tensor.dtype
        assert torch.equal(content[name], tensor)


def test_a_file_without_texts_has_none(tmp_path: Path) -> None:
    safetensors.torch.save_file({"weight": torch.ones(3)}, tmp_path / "model.safetensors")
    assert load_checkpoint(tmp_path / "model.safetensors")[METADATA] == {}


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "whole")
    whole, path = (tmp_path / "whole").read_bytes(), tmp_path / "cut.safetensors"
    for length in (0, 1, 8, 9, 50, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(BuildError) as refusal:
            load_checkpoint(path)
        assert refusal.value.code == "checkpoint.format"
        assert refusal.value.artefact == path.name


def test_a_changed_header_is_read_or_refused_and_nothing_else(tmp_path: Path) -> None:
    saved(tmp_path / "whole")
    whole, path = (tmp_path / "whole").read_bytes(), tmp_path / "changed.safetensors"
    header = 8 + int.from_bytes(whole[:8], "little")
    draw, codes = random.Random(7), set()
    for _ in range(400):
        changed = bytearray(whole)
        for _ in range(draw.randint(1, 4)):
            changed[draw.randrange(header)] = draw.randrange(256)
        path.write_bytes(changed)
        try:
            load_checkpoint(path)
        except BuildError as error:
            codes.add(error.code)
    assert codes == {"checkpoint.format"}


def test_a_stated_list_is_one_or_is_refused() -> None:
    assert stated_list({METADATA: {"classes": '["b", "a"]'}}, "classes", "x") == ["b", "a"]
    assert stated_list({METADATA: {}}, "classes", "x") is None
    assert stated_list({}, "classes", "x") is None
    for text in ("", "a, b", '"ab"', '{"a": 1}', "1", "[" * 100_000):
        with pytest.raises(BuildError) as refusal:
            stated_list({METADATA: {"classes": text}}, "classes", "probe.safetensors")
        assert refusal.value.code == "checkpoint.config"
        assert refusal.value.artefact == "probe.safetensors"
        assert len(json.dumps(refusal.value.to_json())) < 1000
