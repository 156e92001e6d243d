"""A side's torch module as the runtime's own code calls a compiled graph, and the banks made with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from promptray.export.families.base import LoadedHead, LoadedModel, Reference, Scoring, Side
from promptray.runtime.bound_heads import BoundHead
from promptray.runtime.bundle.manifest import BankRule
from promptray.runtime.graphs import encode_finding
from promptray.runtime.prompts import BankEntry, PromptBank
from promptray.runtime.text import EncodedFinding

Array = NDArray[Any]


class TorchGraph:
    """A side that is called with arrays by name. Float32, on the CPU.

    Parameters
    ----------
    side : Side
    resident : mapping of str to array
        Inputs that every call has.
    """

    def __init__(self, side: Side, resident: Mapping[str, Array] | None = None) -> None:
        self._side = side
        self._resident = dict(resident or {})

    def bind(self, resident: Mapping[str, Array]) -> TorchGraph:
        """Keep more inputs."""
        return TorchGraph(self._side, {**self._resident, **resident})

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Run with the remaining inputs; return every output by name."""
        given = {**self._resident, **inputs}
        tensors = [torch.from_numpy(np.ascontiguousarray(given[each.name])) for each in self._side.inputs]
        with torch.inference_mode():
            outputs = self._side.module(*tensors)
        names = [each.name for each in self._side.outputs]
        return {name: found.numpy() for name, found in zip(names, outputs, strict=True)}


def torch_bank(model: LoadedModel, head: LoadedHead, findings: Sequence[EncodedFinding]) -> PromptBank:
    """Return the bank of findings, encoded by the model's text side in torch, or of its classes."""
    rule = BankRule(
        file="bank.safetensors",
        id="0" * 64,
        identity=dict(head.identity),
        tensors=list(head.bank),
        row_buckets=list(head.row_buckets),
        row_bias=head.row_bias,
        ensemble=head.ensemble,
    )
    if head.classes is not None:
        chosen = [dict(head.classes[str(finding.class_name)]) for finding in findings]
        return PromptBank(rule, [BankEntry(str(n), (), tensors) for n, tensors in enumerate(chosen)])
    if model.text is None:
        raise TypeError("a head without classes has a text side")
    graph = TorchGraph(model.text.side)
    entries = [
        encode_finding(graph, rule, str(n), finding, allow_empty=True) for n, finding in enumerate(findings)
    ]
    return PromptBank(rule, entries)


def sides_reference(model: LoadedModel, name: str) -> Scoring:
    """Return a reference that runs a model's sides in torch, as the graphs that are exported of them.

    Parameters
    ----------
    model : LoadedModel
    name : str
        Of the head.
    """

    def score(
        pixels: Tensor, findings: Sequence[EncodedFinding], done: Callable[[int], None] = lambda _: None
    ) -> Reference:
        head = model.head(name)
        bound = BoundHead.of(TorchGraph(head.side), torch_bank(model, head, findings).batches())
        image = TorchGraph(model.image)
        logits, maps = [], []
        for number in range(len(pixels)):
            found, shown = bound.run(image.run({"pixels": pixels[number : number + 1].numpy()}))
            logits.append(found)
            maps.append(shown)
            done(number + 1)
        with_maps = [each for each in maps if each is not None]
        return Reference(np.concatenate(logits), np.concatenate(with_maps) if with_maps else None)

    return score
