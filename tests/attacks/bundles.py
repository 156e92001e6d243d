"""Hostile contents of a bundle whose hashes and seal are right: what only looking inside can tell.

Changed bytes, names and links are in ``tests/runtime/bundle/test_attacks.py``: there the seal tells.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper

from tests import bundle_factory as factory

HEAD, BANK = factory.HEAD_GRAPH, factory.BANK
GOLDEN, TOKENIZER, PARITY = "golden/golden.safetensors", "tokenizer.json", "parity.json"
LOGITS = f"logits.{factory.HEAD}"

Attack = Callable[[Path], None]


def _replace(name: str, change: Callable[[bytes], bytes]) -> Attack:
    return lambda bundle: factory.relist(bundle, name, change((bundle / name).read_bytes()))


def _graph(name: str, edit: Callable[[onnx.ModelProto], None]) -> Attack:
    def change(content: bytes) -> bytes:
        model = onnx.ModelProto.FromString(content)
        edit(model)
        return model.SerializeToString()

    return _replace(name, change)


def _keep_weights_in(location: str) -> Attack:
    def edit(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)

    return _graph(HEAD, edit)


def _hide_external(model: onnx.ModelProto) -> None:
    """Weights of another file within a branch within a node, not among the initialisers."""
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../../secret")
    branch = helper.make_graph([helper.make_node("Constant", [], ["out"], value=tensor)], "branch", [], [])
    model.graph.node.append(
        helper.make_node("If", ["nothing"], ["x"], then_branch=branch, else_branch=branch)
    )


def _custom_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.attacker"
    model.opset_import.append(helper.make_opsetid("com.attacker", 1))


def _endless_constant(model: onnx.ModelProto) -> None:
    """Ten terabytes in a few bytes."""
    model.graph.initializer.append(numpy_helper.from_array(np.array([10**13]), "huge"))
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["huge"], ["zeros"]))
    model.graph.node.insert(1, helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0))
    model.graph.node[-1].output[0] = "unused"
    model.graph.node.append(helper.make_node("Add", ["unused", "sum"], ["maps"]))


def _tensors(name: str, edit: Callable[[dict[str, Any]], None]) -> Attack:
    def change(content: bytes) -> bytes:
        tensors = dict(safetensors.numpy.load(content))
        edit(tensors)
        return bytes(safetensors.numpy.save(tensors))

    return _replace(name, change)


def _header(edit: Callable[[dict[str, Any]], None]) -> Callable[[bytes], bytes]:
    """Change the header of a safetensors file and leave its tensors."""

    def change(content: bytes) -> bytes:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        edit(header)
        raw = json.dumps(header).encode()
        return struct.pack("<Q", len(raw)) + raw + content[8 + length :]

    return change


def _overlap(header: dict[str, Any]) -> None:
    header["query"]["data_offsets"] = header["offsets"]["data_offsets"]


def _grow(header: dict[str, Any]) -> None:
    header["query"]["shape"] = [2**40, 2**40]


def _json(name: str, edit: Callable[[dict[str, Any]], None]) -> Attack:
    def change(content: bytes) -> bytes:
        document = json.loads(content)
        edit(document)
        return json.dumps(document).encode()

    return _replace(name, change)


def _manifest(edit: Callable[[dict[str, Any]], None]) -> Attack:
    return lambda bundle: factory.edited(bundle, edit)


def _endless_expression(document: dict[str, Any]) -> None:
    """A regular expression that takes exponential time on a long word."""
    document["pre_tokenizer"] = {
        "type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False
    }  # fmt: skip


def _doubled_keys(bundle: Path) -> None:
    """A million keys, the last of them twice."""
    keys = ", ".join(f'"{number}": 0' for number in range(1_000_000))
    factory.reseal(bundle, f'{{{keys}, "999999": 0}}'.encode())


def _swap_findings(document: dict[str, Any]) -> None:
    document["findings"].reverse()


def _grow_network(document: dict[str, Any]) -> None:
    """Three gigabytes of pixels for every image, consistently declared."""
    side = document["preprocessing"]["width"]
    for step in document["preprocessing"]["steps"]:
        step["size"] = 16384
    document["preprocessing"].update(height=16384, width=16384)
    for graph in document["graphs"]:
        for tensor in graph["inputs"]:
            tensor["dims"] = [16384 if dim == side else dim for dim in tensor["dims"]]


def _nan(tensors: dict[str, Any]) -> None:
    tensors[LOGITS] = np.full_like(tensors[LOGITS], np.nan)


def _other_scores(tensors: dict[str, Any]) -> None:
    tensors[LOGITS] = tensors[LOGITS] + 1


ATTACKS: dict[str, Attack] = {
    "graph: nothing": _replace(HEAD, lambda _: b""),
    "graph: text": _replace(HEAD, lambda _: b"#!/bin/sh\nrm -rf /\n"),
    "graph: cut": _replace(HEAD, lambda content: content[: len(content) // 2]),
    "graph: weights in an absolute path": _keep_weights_in("/etc/passwd"),
    "graph: weights in a parent folder": _keep_weights_in("../../../secret"),
    "graph: weights in the working folder": _keep_weights_in("pyproject.toml"),
    "graph: weights elsewhere, deep inside": _graph(HEAD, _hide_external),
    "graph: operator of its own": _graph(HEAD, _custom_operator),
    "graph: another input": _graph(HEAD, lambda model: setattr(model.graph.input[0], "name", "evil")),
    "graph: an output missing": _graph(HEAD, lambda model: model.graph.output.pop()),
    "graph: endless constant": _graph(HEAD, _endless_constant),
    "bank: nothing": _replace(BANK, lambda _: b""),
    "bank: header of 2**63 bytes": _replace(BANK, lambda content: struct.pack("<Q", 2**63) + content[8:]),
    "bank: header beyond the file": _replace(BANK, lambda content: struct.pack("<Q", 10**6) + content[8:]),
    "bank: header nested": _replace(BANK, lambda _: struct.pack("<Q", 10**5) + b"[" * 10**5),
    "bank: tensors overlap": _replace(BANK, _header(_overlap)),
    "bank: shape of 2**80": _replace(BANK, _header(_grow)),
    "bank: no metadata": _replace(BANK, _header(lambda header: header.pop("__metadata__"))),
    "bank: facts changed": _replace(BANK, lambda content: content.replace(b"pneumonia", b"pneumoniA", 1)),
    "bank: pickle": _replace(BANK, lambda _: b"\x80\x04cos\nsystem\n(S'true'\ntR."),
    "findings in another order": _manifest(_swap_findings),
    "golden: not finite": _tensors(GOLDEN, _nan),
    "golden: other scores": _tensors(GOLDEN, _other_scores),
    "golden: tensor missing": _tensors(GOLDEN, lambda tensors: tensors.pop("pictures")),
    "golden: image is no image": _replace("golden/images/000.png", lambda _: b"GIF89a"),
    "golden: image cut": _replace("golden/images/000.png", lambda content: content[:-20]),
    "tokenizer: nothing": _replace(TOKENIZER, lambda _: b""),
    "tokenizer: nested": _replace(TOKENIZER, lambda _: b'{"a":' * 100_000),
    "tokenizer: another model": _json(TOKENIZER, lambda document: document.update(model={"type": "Evil"})),
    "tokenizer: endless expression": _json(TOKENIZER, _endless_expression),
    "parity: nothing": _replace(PARITY, lambda _: b""),
    "parity: endless nesting": _replace(PARITY, lambda _: b"[" * 100_000),
    "parity: not a number": _replace(PARITY, lambda content: content.replace(b"2e-05", b"NaN")),
    "manifest: a million keys, one twice": _doubled_keys,
    "manifest: number of 5000 digits": lambda bundle: factory.reseal(bundle, b'{"a": ' + b"9" * 5000 + b"}"),
    "manifest: half a character": _manifest(lambda document: document.update(name="\udc00")),
    "manifest: network of 16384": _manifest(_grow_network),
    "manifest: a tokenizer of a terabyte": _manifest(
        lambda document: document["files"][TOKENIZER].update(size=10**12)
    ),
}


def sealed(bundle: Path) -> bool:
    """Tell whether the seal fits: an attack that breaks it proves nothing of what is inside."""
    digest = hashlib.sha256((bundle / "bundle.json").read_bytes()).hexdigest()
    return (bundle / "bundle.sha256").read_text().startswith(digest)
