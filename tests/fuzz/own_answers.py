"""What a build adds to a bundle's graphs: the bank that its text graph makes, and golden answers."""

from __future__ import annotations

from functools import partial

import safetensors.numpy

from promptray.runtime.backends import load_backend
from promptray.runtime.backends.onnxruntime import OnnxRuntimeCpu
from promptray.runtime.bank_file import pack
from promptray.runtime.bound_heads import BoundHead
from promptray.runtime.bundle.manifest import Manifest
from promptray.runtime.graphs import encode_finding
from promptray.runtime.preprocess import normalise
from promptray.runtime.prompts import PromptBank
from promptray.runtime.text import TextEncoder


def with_own_answers(manifest: Manifest, files: dict[str, bytes]) -> dict[str, bytes]:
    """Return the files with a bank and golden answers that the graphs of the bundle's only head give.

    The golden pictures are those in `files`. Nothing is shown to be right by this: such a bundle verifies.
    """
    (head,), backend = manifest.heads, load_backend(OnnxRuntimeCpu.name, threads=1)
    loaded = {
        graph.role: backend.load(partial(files.__getitem__, graph.file), graph) for graph in manifest.graphs
    }
    text = manifest.text
    assert text is not None
    encoder, text_graph = TextEncoder(text, files[text.tokenizer]), loaded["text"].bind({})
    entries = [
        encode_finding(
            text_graph, head.bank, each.key, encoder.encode_finding(each.prompts, each.negative_prompts)
        )
        for each in manifest.findings
    ]
    bank = PromptBank(head.bank, entries)
    pictures = safetensors.numpy.load(files[manifest.golden.tensors])["pictures"]
    features = loaded["image"].bind({}).run({"pixels": normalise(pictures, manifest.preprocessing)})
    logits, maps = BoundHead.of(loaded["head"], bank.batches()).run(features)
    assert maps is not None
    golden = {"pictures": pictures, f"logits.{head.name}": logits, f"maps.{head.name}": maps}
    return {**files, head.bank.file: pack(bank), manifest.golden.tensors: safetensors.numpy.save(golden)}
