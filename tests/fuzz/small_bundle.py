"""A bundle of a few kilobytes that runs, and copies of it with one file replaced."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import safetensors.numpy
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from promptray.runtime.bundle import write_bundle
from tests import bundle_factory as factory
from tests.fuzz.own_answers import with_own_answers
from tests.onnx_bundle import write_runnable

TOKENIZER, TEXT_GRAPH = "tokenizer.json", "graphs/text/fp32-20.onnx"
#: The files that a fuzzed input may replace.
REPLACED = (
    *("bundle.json", factory.BANK, TOKENIZER, "parity.json", "golden/golden.safetensors"),
    *(factory.HEAD_GRAPH, TEXT_GRAPH, "golden/images/000.png"),
)
#: What preprocessing cuts off on each side of a golden image.
MARGIN = 4


class SmallBundle:
    """A bundle in a folder, one file of which is replaced again and again.

    Parameters
    ----------
    path : Path
        The bundle.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._contents = {name: (self.path / name).read_bytes() for name in REPLACED}
        self._changed = REPLACED[0]

    def content(self, name: str) -> bytes:
        """The file as it was written."""
        return self._contents[name]

    def replace(self, name: str, content: bytes) -> None:
        """Replace one of `REPLACED`, all others as they were, and seal the bundle again."""
        if self._changed != name:
            (self.path / self._changed).write_bytes(self._contents[self._changed])
            self._changed = name
        if name == "bundle.json":
            factory.reseal(self.path, content)
            return
        document = json.loads(self._contents["bundle.json"])
        document["files"][name] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        (self.path / name).write_bytes(content)
        factory.reseal(self.path, json.dumps(document).encode())


def write_small(folder: Path) -> None:
    """Write ``small.bundle``: the runnable miniature with a bank, a tokenizer and a text graph of its own."""
    manifest = factory.manifest(graphs=graphs_with_text())
    write_bundle(folder / "small.bundle", manifest, dict(with_own_answers(manifest, small_files(folder))))


def small_files(folder: Path) -> dict[str, bytes]:
    """Return the files of ``small.bundle`` but for bank and answers; `folder` takes a draft for a moment."""
    draft = write_runnable(folder / "draft.bundle")
    files: dict[str, bytes] = {name: (draft.path / name).read_bytes() for name in draft.manifest.files}
    files[TOKENIZER] = _tokenizer()
    files[TEXT_GRAPH] = _text_graph().SerializeToString()
    files["parity.json"] = _parity()
    pictures = safetensors.numpy.load(files["golden/golden.safetensors"])["pictures"]
    for name, picture in zip(draft.manifest.golden.images, pictures, strict=True):
        files[name] = _png(np.pad(picture, MARGIN))
    shutil.rmtree(draft.path)
    return files


def _png(picture: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture).save(stream, "png")
    return stream.getvalue()


def graphs_with_text() -> list[dict[str, Any]]:
    """The miniature's graphs, the text graph with both inputs that the runtime feeds."""
    graphs = factory.graphs()
    text = next(graph for graph in graphs if graph["role"] == "text")
    text["inputs"].append({"name": "word_matrix", "dtype": "float32", "dims": [1, "words", "tokens"]})
    return graphs


def _tokenizer() -> bytes:
    words = "[UNK] [CLS] [SEP] there is pneumonia no finding a rib fracture ##s".split()
    special = [
        {"id": number, "content": word, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False, "special": True}
        for number, word in enumerate(words[:3])
    ]  # fmt: skip
    document = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": special,
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": True,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]},
        "decoder": None,
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {word: number for number, word in enumerate(words)},
        },
    }
    return json.dumps(document).encode()


def _text_graph() -> onnx.ModelProto:
    """A table of word vectors: each word is a row of keys and of values, their mean is the query."""
    facts = next(graph for graph in graphs_with_text() if graph["role"] == "text")
    half, node = factory.WIDTH // 2, helper.make_node
    nodes = [
        node("Gather", ["vectors", "input_ids"], ["pieces"]),  # (1, tokens, width)
        node("MatMul", ["word_matrix", "pieces"], ["words"]),  # (1, words, width)
        node("ReduceMean", ["words", "both"], ["query"], keepdims=0),
        node("Reshape", ["words", "split"], ["parts"]),  # (words, 2, width / 2)
        node("Transpose", ["parts"], ["keys.0"], perm=[1, 2, 0]),
        node("Transpose", ["parts"], ["values.0"], perm=[1, 0, 2]),
        node("ReduceSum", ["words", "ends"], ["sums"], keepdims=0),
        node("Sub", ["sums", "sums"], ["row_bias"]),
    ]
    vectors = np.random.default_rng(6).normal(0, 1, (11, factory.WIDTH)).astype(np.float32)
    weights = {
        "vectors": vectors,
        "both": np.array([0, 1]),
        "ends": np.array([0, 2]),
        "split": np.array([-1, 2, half]),
    }
    types = {"float32": TensorProto.FLOAT, "int64": TensorProto.INT64}
    inputs, outputs = (
        [helper.make_tensor_value_info(t["name"], types[t["dtype"]], t["dims"]) for t in facts[side]]
        for side in ("inputs", "outputs")
    )
    initialisers = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "text", inputs, outputs, initialisers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def _parity() -> bytes:
    head = {
        "head": factory.HEAD,
        "findings": len(factory.PROMPTS),
        "decisions": factory.GOLDEN * len(factory.PROMPTS),
        "score_tolerance": 2e-5,
        "tolerance_share": 1e-5,
        "map_tolerance": 1e-6,
        "against_original": {
            "against": "float64", "score_error": 0.0, "score_error_mean": 0.0, "map_error": 0.0
        },
        "noise": [],
    }  # fmt: skip
    document = {
        "format": "promptray-parity",
        "format_version": 3,
        "graphs": "fp32",
        "backend": "onnxruntime",
        "machine": "any",
        "images": factory.GOLDEN,
        "heads": [head],
    }
    return json.dumps(document).encode()
