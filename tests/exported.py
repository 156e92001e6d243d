"""A loaded model's sides exported and run in ONNX Runtime, without a bundle around them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from promptray.export.families.base import LoadedModel
from promptray.export.model_facts import OPSET, describe
from promptray.export.onnx_graph import export_graph
from promptray.runtime.backends import BoundGraph
from promptray.runtime.backends.onnxruntime import OnnxRuntimeCpu
from promptray.runtime.bundle.manifest import BankRule, Graph
from promptray.runtime.graphs import BoundHead, encode_finding
from promptray.runtime.prompts import PromptBank
from promptray.runtime.text import EncodedFinding, TextEncoder


class Exported:
    """The three graphs in ONNX Runtime, and the bank's rule."""

    def __init__(self, model: LoadedModel) -> None:
        facts = describe(model)
        backend = OnnxRuntimeCpu(threads=2)
        self.graphs, self.files = {}, {}
        for side in model.sides:
            graph = Graph(
                role=side.role, file=f"{side.role}.onnx", precision="fp32", opset=OPSET,
                inputs=list(side.inputs), outputs=list(side.outputs), consumers=[backend.name],
            )  # fmt: skip
            self.files[side.role] = export_graph(side)
            self.graphs[side.role] = backend.load(self.files[side.role], graph)
        self.image: BoundGraph = self.graphs["image"].bind({})
        if model.text is not None:
            self.text: BoundGraph = self.graphs["text"].bind({})
            self.encoder = TextEncoder(model.text, model.tokenizer)
        self.rule = BankRule(
            file="prompts.safetensors", id="0" * 64, identity={}, tensors=facts.bank,
            row_buckets=facts.row_buckets, row_bias=facts.row_bias, ensemble=facts.ensemble,
        )  # fmt: skip

    def score(self, bank: PromptBank, pixels: Any, *, per_batch: int | None = None) -> tuple[Any, Any]:
        bound = tuple(
            (batch.positions, self.graphs["head"].bind(batch.tensors))
            for batch in bank.batches(prompts_per_batch=per_batch)
        )
        logits, maps = BoundHead(bound, len(bank)).run(self.image.run({"pixels": pixels}))
        return logits, maps

    def bank(self, findings: Sequence[EncodedFinding]) -> PromptBank:
        entries = [encode_finding(self.text, self.rule, f"f{n}", each) for n, each in enumerate(findings)]
        return PromptBank(self.rule, entries)
