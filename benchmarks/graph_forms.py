"""Which form of a bundle's graphs is the fastest on this processor, for the same answers.

    python -m benchmarks.graph_forms full.bundle -o benchmarks/results/graph_forms.json

Each form (`benchmarks.graph_surgery`) takes turns with what the bundle carries, in ONNX Runtime as the
runtime opens it, and must first give its answers within `TOLERANCE` of their largest number. *Image side*:
the shapes of all tensors noted, rewritten or fused ahead of time, attention in one operator. *From the 8-bit
picture*: planes that are made of it on the host, three where one is shipped, or none, with mean and deviation
in the graph. *Image side and head*: one graph against the runtime's chain of two, which looks at every
feature on the way. *Head*: its projection in the bank's values.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks import graph_surgery as surgery
from benchmarks.peers.contest import PAUSE
from benchmarks.result_file import Commit, Date, Struct, commit, document, today
from benchmarks.session_settings import STOP, difference, entry, session
from benchmarks.timing import interleaved, machine, report
from promptray.runtime.backends.onnxruntime import OnnxRuntimeCpu
from promptray.runtime.bundle import Bundle
from promptray.runtime.cores import host_threads
from promptray.runtime.golden import read_golden
from promptray.runtime.graphs import Graphs, own_bank
from promptray.runtime.packs import read_pack
from promptray.runtime.preprocess import normalise
from promptray.runtime.prompts import BankBatch, PromptBank

TOLERANCE = 1e-4
Tensors = Mapping[str, NDArray[Any]]
Call = Callable[[], list[NDArray[np.float32]]]
#: What makes a form, and what opens it.
Form = tuple[Callable[[], bytes], Callable[[bytes], Call]]


class Row(Struct, frozen=True, kw_only=True):
    """One form beside what is shipped; one that the graph cannot have says why."""

    form: str
    times: dict[str, float] | None = None
    """Milliseconds, and their ratio to what is shipped, round by round: below 1, the form is faster."""
    difference: float | None = None
    """Largest difference of an answer, as a share of that tensor's largest number."""
    operators: tuple[str, ...] = ()
    """Those of the form that are outside the ONNX standard."""
    not_run: str | None = None


class GraphForms(Struct, frozen=True, kw_only=True):
    """What a run writes."""

    commit: Commit
    date: Date
    machine: dict[str, Any]
    model: str
    threads: int
    rounds: int
    onnxruntime: str
    tolerance: float
    questions: dict[str, list[Row]]


def compared(shipped: Call, forms: Mapping[str, Form], rounds: int) -> list[Row]:
    """Let each form take turns with what is shipped, two of them in memory at a time.

    Raises
    ------
    AssertionError
        Where a form gives other answers: then there is nothing to time.
    """
    rows = []
    for name, (make, opened) in forms.items():
        try:
            content = make()
        except surgery.NoSuchForm as error:
            rows.append(Row(form=name, not_run=str(error)))
            continue
        call = opened(content)
        off = difference(call(), shipped())
        if not off <= TOLERANCE:
            raise AssertionError(f"{name}: answers differ by {off:.2g} of their largest number")
        both = {"shipped": shipped, name: call}
        times = interleaved(both, rounds=rounds, baseline="shipped", pause=PAUSE)[name]
        rows.append(Row(form=name, times=times, difference=off, operators=tuple(surgery.operators(content))))
        del call, both
    return rows


class Measured:
    """One bundle of one head, and one of its golden pictures."""

    def __init__(self, path: Path, threads: int, rounds: int) -> None:
        self.bundle, self.threads, self.rounds = Bundle.open(path), threads, rounds
        (self.head,) = self.bundle.manifest.heads
        self.rule = self.bundle.manifest.preprocessing
        self.graphs = Graphs(self.bundle, OnnxRuntimeCpu(threads=threads), prompts_per_batch=None)
        picture = read_golden(self.bundle).pictures[:1]
        grey = picture if picture.ndim == 3 else picture[..., 0]
        self.picture = np.rint(grey).clip(0, 255).astype(np.uint8)
        self.pixels = normalise(self.picture, self.rule)
        self.image, self.scored = self._content("image"), self._content("head")

    def _content(self, role: str) -> bytes:
        for graph in self.bundle.manifest.graphs:
            if graph.role == role and graph.precision == "fp32":
                return self.bundle.read(graph.file)
        raise SystemExit(f"the bundle has no fp32 {role} graph")

    def opened(self, content: bytes, resident: Tensors) -> Call:
        """Open a graph on inputs that stay where they are, as the runtime binds them."""
        made = session(content, self.threads)
        feeds = _values({each.name: resident[each.name] for each in made.get_inputs()})
        return lambda: [value.numpy() for value in made.run_with_ort_values(None, feeds)]

    def image_side(self) -> list[Row]:
        def opened(content: bytes) -> Call:
            return self.opened(content, {"pixels": self.pixels})

        makers: dict[str, Callable[[bytes], bytes]] = {
            "shapes noted": surgery.with_shapes,
            "rewritten ahead of time": surgery.rewritten,
        }
        for kind in ("vit", "bert", "clip"):
            makers[f"fused as {kind}"] = partial(surgery.fused_by_tool, kind=kind)
        for kind in surgery.ATTENTION:
            makers[f"attention: {kind}"] = partial(surgery.with_attention, kind=kind)
        forms = {name: (partial(make, self.image), opened) for name, make in makers.items()}
        return compared(opened(self.image), forms, self.rounds)

    def from_picture(self) -> list[Row]:
        one = self.rule.normalise
        equal = msgspec.structs.replace(one, mean=one.mean * 3, std=one.std * 3)
        three = msgspec.structs.replace(self.rule, channels=3, normalise=equal)

        def opened(content: bytes, pixels: Callable[[], NDArray[Any]]) -> Call:
            made = session(content, self.threads)
            return lambda: made.run(None, {"pixels": pixels()})

        forms: dict[str, Form] = {
            "three channels": (
                partial(surgery.with_three_planes, self.image),
                partial(opened, pixels=lambda: normalise(self.picture, three)),
            ),
            "8-bit levels": (
                partial(surgery.for_levels, self.image, one),
                partial(opened, pixels=lambda: self.picture[:, None]),
            ),
        }
        return compared(opened(self.image, lambda: normalise(self.picture, self.rule)), forms, self.rounds)

    def banks(self, prompts: Sequence[int]) -> list[PromptBank]:
        """Return banks of so many prompts: the bundle's own, the pack's, then all of these once more."""
        entries, rule = list(own_bank(self.bundle, self.head)), self.head.bank
        if self.head.set == "fixed":
            return [PromptBank(rule, entries)]
        if self.bundle.manifest.text is not None:
            findings = read_pack("padchest192").findings[len(entries) : max(prompts)]
            entries += [self.graphs.encode(f"pack {each.key}", each.prompts) for each in findings]
        return [
            PromptBank(rule, [replace(entries[n % len(entries)], key=f"finding {n}") for n in range(count)])
            for count in prompts
        ]

    def image_and_head(self, bank: PromptBank) -> list[Row]:
        chain = self.graphs.chain([self.graphs.bind(self.head, bank)])
        batches = bank.batches()

        def one(content: bytes) -> Call:
            tensors = {f"{k}.{n}": v for n, each in enumerate(batches) for k, v in each.tensors.items()}
            call = self.opened(content, {"pixels": self.pixels, **tensors})
            return lambda: _in_order(call(), batches)

        def form() -> bytes:
            return surgery.joined(self.image, self.scored, len(batches))

        def shipped() -> list[NDArray[np.float32]]:
            return [each for each in chain.run(self.pixels)[0] if each is not None]

        forms: dict[str, Form] = {
            "one graph": (form, one),
            "threads that go on spinning": (lambda: self.scored, partial(self._spinning, batches=batches)),
        }
        return compared(shipped, forms, self.rounds)

    def _spinning(self, head: bytes, *, batches: Sequence[BankBatch]) -> Call:
        """Open image side and head with threads that look for work after a call, where the next one's are."""
        first, second = (session(each, self.threads, entry(STOP, "0")) for each in (self.image, head))
        names, pixels = [each.name for each in first.get_outputs()], _values({"pixels": self.pixels})
        banks = [_values(batch.tensors) for batch in batches]

        def call() -> list[NDArray[np.float32]]:
            features = dict(zip(names, first.run_with_ort_values(names, pixels), strict=True))
            found = []
            for bank in banks:
                feeds = {each.name: {**features, **bank}[each.name] for each in second.get_inputs()}
                found += [value.numpy() for value in second.run_with_ort_values(None, feeds)]
            return _in_order(found, batches)

        return call

    def head_alone(self, bank: PromptBank) -> list[Row]:
        largest = max(bank.batches(), key=lambda each: len(each.positions))
        inputs = {**self.graphs.features(self.pixels), **largest.tensors}

        def opened(content: bytes) -> Call:
            return self.opened(content, surgery.projected_bank(self.scored, inputs))

        forms = {"projection in the bank's values": (lambda: surgery.values_projected(self.scored), opened)}
        return compared(self.opened(self.scored, inputs), forms, self.rounds)


def _values(arrays: Tensors) -> dict[str, ort.OrtValue]:
    return {name: ort.OrtValue.ortvalue_from_numpy(array) for name, array in arrays.items()}


def _in_order(
    found: Sequence[NDArray[np.float32]], batches: Sequence[BankBatch]
) -> list[NDArray[np.float32]]:
    """Put logits, and maps where there are some, in the bank's order."""
    made = []
    for start in range(len(found) // len(batches)):  # of each batch logits, then maps
        parts = found[start :: len(found) // len(batches)]
        count = sum(len(batch.positions) for batch in batches)
        whole = np.empty((1, count, *parts[0].shape[2:]), np.float32)
        for batch, part in zip(batches, parts, strict=True):
            whole[:, batch.positions] = part
        made.append(whole)
    return made


def measure(path: Path, prompts: Sequence[int], *, threads: int, rounds: int) -> GraphForms:
    """Answer every question about one bundle, and print each answer as a table."""
    measured, questions = Measured(path, threads, rounds), dict[str, list[Row]]()

    def answered(question: str, rows: list[Row]) -> None:
        questions[question] = rows
        report(question, {row.form: row.times for row in rows if row.times})
        for row in rows:
            if row.not_run or row.operators:
                print(f"    {row.form}: {row.not_run or ', '.join(row.operators)}")

    answered("image side", measured.image_side())
    answered("from the 8-bit picture to features", measured.from_picture())
    for bank in measured.banks(prompts):
        answered(f"image side and head, {len(bank)} prompts", measured.image_and_head(bank))
        answered(f"head, {len(bank)} prompts", measured.head_alone(bank))
    return GraphForms(
        commit=commit(), date=today(), machine=machine(), model=measured.bundle.manifest.name,
        threads=threads, rounds=rounds, onnxruntime=ort.__version__, tolerance=TOLERANCE, questions=questions,
    )  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="result file")
    parser.add_argument("--prompts", default="14,192", metavar="N,N", help="numbers of prompts")
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--threads", type=int, help="default: every core")
    options = parser.parse_args(arguments)
    prompts = [int(number) for number in options.prompts.split(",")]
    found = measure(options.bundle, prompts, threads=host_threads(options.threads), rounds=options.rounds)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_bytes(document(found))
        print(f"\nwrote {options.output}")


if __name__ == "__main__":
    main()
