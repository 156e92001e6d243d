"""How should prompts of different length lie in the bank? Padded to the longest, in buckets, or packed.

    python benchmarks/bank_layout.py BUNDLE -o benchmarks/results/bank_layout.json

Two prompt sets: 192 short ones (PadChest), and the same with one of 95 words among them. The whole head is
timed in ONNX Runtime for each padding rule. Packing (no padding, segments by owner index) needs another
attention graph; its attention alone is timed against the bucketed attention alone, on the same rows.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
import torch
from torch import Tensor, nn

from benchmarks.timing import interleaved, machine, report, save
from promptray import Scorer
from promptray.export.families.base import Side
from promptray.export.onnx_graph import export_graph
from promptray.runtime.backends.onnxruntime import OnnxRuntimeCpu
from promptray.runtime.bundle.manifest import Head, TensorFacts
from promptray.runtime.golden import read_golden
from promptray.runtime.graphs import Graphs
from promptray.runtime.packs import read_pack
from promptray.runtime.preprocess import normalise
from promptray.runtime.prompts import PromptBank

LONG = "there is " + "a mild and diffuse opacity of the left lung and " * 9 + "no effusion"


class Padded(nn.Module):
    """One query a prompt over its padded rows."""

    def forward(self, query: Tensor, keys: Tensor, values: Tensor, bias: Tensor) -> tuple[Tensor]:
        weights = (query[:, :, None] @ keys + bias[:, None, None]).softmax(dim=-1)
        return ((weights @ values)[:, :, 0],)


class Packed(nn.Module):
    """One query a prompt over its own rows, which lie one after another; `owner` names each row's prompt."""

    def forward(
        self, query: Tensor, keys: Tensor, values: Tensor, bias: Tensor, owner: Tensor
    ) -> tuple[Tensor]:
        prompts, heads, width = query.shape
        logits = (query[owner] * keys).sum(dim=-1) + bias[:, None]
        index = owner[:, None].expand(-1, heads)
        greatest = logits.new_full((prompts, heads), -torch.inf).scatter_reduce(0, index, logits, "amax")
        weights = (logits - greatest[owner]).exp()
        total = weights.new_zeros((prompts, heads)).scatter_add(0, index, weights)
        spread = owner[:, None, None].expand(-1, heads, width)
        summed = values.new_zeros((prompts, heads, width)).scatter_add(0, spread, weights[..., None] * values)
        return (summed / total[..., None],)


def facts(name: str, *dims: int | str, dtype: Any = "float32") -> TensorFacts:
    return TensorFacts(name=name, dtype=dtype, dims=list(dims))


def attention_sessions(heads: int, width: int, threads: int) -> tuple[Any, Any]:
    query = facts("query", "prompts", heads, width)
    padded = Side(
        Padded().eval(),
        [query, facts("keys", "prompts", heads, width, "rows"),
         facts("values", "prompts", heads, "rows", width), facts("bias", "prompts", "rows")],
        [facts("out", "prompts", heads, width)],
    )  # fmt: skip
    packed = Side(
        Packed().eval(),
        [query, facts("keys", "rows", heads, width), facts("values", "rows", heads, width),
         facts("bias", "rows"), facts("owner", "rows", dtype="int64")],
        [facts("out", "prompts", heads, width)],
    )  # fmt: skip
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return tuple(ort.InferenceSession(export_graph(side, "attention"), options) for side in (padded, packed))


def with_buckets(bank: PromptBank, buckets: Sequence[int]) -> PromptBank:
    return PromptBank(msgspec.structs.replace(bank.rule, row_buckets=list(buckets)), bank.entries)


def rows_of(bank: PromptBank) -> list[int]:
    return [entry.tensors["row_bias"].shape[0] for entry in bank]


def time_heads(
    head: Head, bank: PromptBank, graphs: Graphs, features: Any, rounds: int
) -> dict[str, dict[str, float]]:
    longest = max(rows_of(bank))
    layouts = {
        "buckets of the bundle": with_buckets(bank, bank.rule.row_buckets),
        "padded to the longest prompt": with_buckets(bank, [longest]),
        "finer buckets: 8 12 16 32 64 99": with_buckets(bank, (8, 12, 16, 32, 64, 99)),
        "a bucket for every length": with_buckets(bank, range(1, longest + 1)),
    }
    bound = {name: graphs.bind(head, laid) for name, laid in layouts.items()}
    runs = {name: (lambda head=head: head.run(features)) for name, head in bound.items()}
    return interleaved(runs, rounds=rounds, baseline="buckets of the bundle")


def time_attention(bank: PromptBank, threads: int, rounds: int) -> dict[str, dict[str, float]]:
    """Time one layer's attention of all prompts, in buckets and packed, and hold both equal."""
    heads, width = bank.entries[0].tensors["keys.0"].shape[:2]
    padded, packed = attention_sessions(heads, width, threads)
    query = np.random.default_rng(0).normal(size=(len(bank), heads, width)).astype(np.float32) * 0.1
    batches = [
        (batch.positions, {"query": query[batch.positions], "keys": batch.tensors["keys.0"],
                           "values": batch.tensors["values.0"], "bias": batch.tensors["row_bias"]})
        for batch in bank.batches()
    ]  # fmt: skip
    counts = rows_of(bank)
    flat = {
        "query": query,
        "keys": np.concatenate([np.moveaxis(entry.tensors["keys.0"], -1, 0) for entry in bank]),
        "values": np.concatenate([np.moveaxis(entry.tensors["values.0"], 1, 0) for entry in bank]),
        "bias": np.concatenate([entry.tensors["row_bias"] for entry in bank]),
        "owner": np.repeat(np.arange(len(bank)), counts),
    }

    def in_buckets() -> Any:
        out = np.empty_like(query)
        for positions, feeds in batches:
            out[positions] = padded.run(None, feeds)[0]
        return out

    def in_one_piece() -> Any:
        return packed.run(None, flat)[0]

    difference = float(np.abs(in_buckets() - in_one_piece()).max())
    if not difference < 1e-5:
        raise SystemExit(f"packed and padded attention differ by {difference}")
    return interleaved({"buckets": in_buckets, "packed": in_one_piece}, rounds=rounds, baseline="buckets")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="result file")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    findings = read_pack("padchest192").findings
    with Scorer.open(options.bundle, site=None) as scorer:
        graphs = Graphs(scorer.bundle, OnnxRuntimeCpu(threads=options.threads), prompts_per_batch=None)
        (head,) = scorer.bundle.manifest.heads
        rule = head.bank
        pictures = read_golden(scorer.bundle).pictures[:1]
        features = graphs.features(normalise(pictures, scorer.bundle.manifest.preprocessing))
    short = PromptBank(rule, [graphs.encode(f"s{n}", each.prompts) for n, each in enumerate(findings)])
    mixed = short.without("s100").with_entry(graphs.encode("long", [LONG]))
    content: dict[str, Any] = {"machine": machine(), "threads": options.threads, "rounds": options.rounds}
    for title, bank in (("192 short prompts", short), ("191 short prompts and one of 95 words", mixed)):
        counts = rows_of(bank)
        timed = time_heads(head, bank, graphs, features, options.rounds)
        report(f"{title}: whole head ({min(counts)} to {max(counts)} rows, {sum(counts)} in all)", timed)
        attention = time_attention(bank, options.threads, options.rounds)
        report(f"{title}: attention of one layer over the prompts' rows", attention)
        content[title] = {"rows": sum(counts), "head": head, "attention": attention}
    if options.output:
        save(options.output, content)


if __name__ == "__main__":
    main()
