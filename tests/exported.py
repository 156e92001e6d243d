"""A loaded model's sides exported and run in ONNX Runtime, without a bundle around them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from promptray.export.families.base import LoadedModel
from promptray.export.model_facts import OPSET, describe
from promptray.export.onnx_graph import export_graph
from promptray.runtime.backends import BoundGraph
from promptray.runtime.backends.onnxruntime import OnnxRuntimeCpu
from promptray.runtime.bound_heads import BoundHead
from promptray.runtime.bundle.manifest import BankRule, Graph
from promptray.runtime.graphs import encode_finding
from promptray.runtime.prompts import PromptBank
from promptray.runtime.text import EncodedFinding, TextEncoder


class Exported:
    """The graphs of a model, with one of its heads, in ONNX Runtime, and the bank's rule."""

    def __init__(self, model: LoadedModel, head: int = 0) -> None:
        facts = describe(model)
        backend = OnnxRuntimeCpu(threads=2)
        self.graphs, self.files = {}, {}
        loaded, own = model.heads[head], facts.heads[head]
        sides = {"image": model.image, "head": loaded.side}
        if model.text is not None:
            sides["text"] = model.text.side
        for role, side in sides.items():
            graph = Graph(
                role=role, file=f"{role}.onnx", precision="fp32", opset=OPSET,
                inputs=list(side.inputs), outputs=list(side.outputs), consumers=[backend.name],
                head=loaded.name if role == "head" else None,
            )  # fmt: skip
            self.files[role] = export_graph(side, role)
            self.graphs[role] = backend.load(partial(self.files.__getitem__, role), graph)
        self.image: BoundGraph = self.graphs["image"].bind({})
        if model.text is not None:
            self.text: BoundGraph = self.graphs["text"].bind({})
            self.encoder = TextEncoder(model.text.rule, model.text.tokenizer)
        self.rule = BankRule(
            file="bank.safetensors", id="0" * 64, identity={}, tensors=own.bank,
            row_buckets=own.row_buckets, row_bias=own.row_bias, ensemble=own.ensemble,
        )  # fmt: skip

    def score(self, bank: PromptBank, pixels: Any, *, per_batch: int | None = None) -> tuple[Any, Any]:
        bound = BoundHead.of(self.graphs["head"], bank.batches(prompts_per_batch=per_batch))
        logits, maps = bound.run(self.image.run({"pixels": pixels}))
        return logits, maps

    def bank(self, findings: Sequence[EncodedFinding]) -> PromptBank:
        entries = [encode_finding(self.text, self.rule, f"f{n}", each) for n, each in enumerate(findings)]
        return PromptBank(self.rule, entries)
