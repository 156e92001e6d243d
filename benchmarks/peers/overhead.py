"""What PromptRay adds around the engine: from a tensor to scores, less the engine's own calls.

The towers are thin, so that a call is short and the difference is seen. What surrounds the engine depends on
the shapes that go in and out, and those are the published ones.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from benchmarks.peers.own import first_picture, score_exactly
from benchmarks.peers.result import Overhead, Target, interval
from promptray import Scorer
from promptray.calibrate.interleaved import interleaved_times
from promptray.runtime.backends import HOST
from promptray.runtime.bundle import Bundle

_WANTED_MS = 0.3


def overheads(
    model: str, path: Path, prompts: Sequence[int], *, rounds: int, threads: int
) -> Iterator[Overhead]:
    """Time the scorer and the bare sessions on the same inputs, taking turns, for each number of prompts.

    Raises
    ------
    AssertionError
        Where the sessions do not give the scorer's scores: then they do other work.
    """
    pixels = first_picture(path)
    with Scorer.open(path, backend=HOST, threads=threads, site=None) as scorer:
        for count in sorted(prompts):
            score_exactly(scorer, count)
            engine = _sessions(scorer, pixels, threads)
            (own,) = scorer.submit_pixels(pixels).result().heads
            for positions, logits in engine():
                same = np.array_equal(own.logits[:, positions], logits[:, : len(positions)])
                assert same, "the sessions give other scores than the scorer"
            calls = {"scorer": lambda: scorer.submit_pixels(pixels).result(), "engine": engine}
            times = interleaved_times(calls, rounds=rounds, warm=10)
            added = [whole - part for whole, part in zip(times["scorer"], times["engine"], strict=True)]
            yield Overhead(
                model=model,
                prompts=count,
                rounds=rounds,
                engine=interval(times["engine"]),
                scorer=interval(times["scorer"]),
                overhead=interval(added),
            )


def targets(found: Sequence[Overhead]) -> list[Target]:
    """Return the design's target for each model."""
    return [
        Target(
            what=f"around the engine, {each.model}, {each.prompts} prompts, ms",
            wanted=f"<= {_WANTED_MS}",
            found=str(each.overhead),
            met=each.overhead.median <= _WANTED_MS,
        )
        for each in found
    ]


def show(found: Overhead) -> None:
    """Print one."""
    print(f"{found.model}, {found.prompts} prompts, ms, {found.rounds} rounds")
    for name in ("engine", "scorer", "overhead"):
        print(f"  {name:10} {getattr(found, name)}")


def _sessions(scorer: Scorer, pixels: Any, threads: int) -> Callable[[], list[tuple[Any, Any]]]:
    """Return image side and head by ``session.run`` alone: place of each prompt, and logits."""
    bundle: Bundle = scorer.bundle
    (head,) = scorer.prompts.state.heads
    names = {graph.role: graph.file for graph in bundle.manifest.graphs if HOST in graph.consumers}
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    image, scored = (
        ort.InferenceSession(bundle.read(names[role]), options, providers=["CPUExecutionProvider"])
        for role in ("image", "head")
    )
    features = [each.name for each in image.get_outputs()]
    taken = {each.name for each in scored.get_inputs()}
    batches = [
        (batch.positions, {name: ort.OrtValue.ortvalue_from_numpy(batch.tensors[name]) for name in taken
                           if name in batch.tensors})
        for batch in head.bank.batches()
    ]  # fmt: skip

    def run() -> list[tuple[Any, Any]]:
        found = dict(zip(features, image.run(features, {"pixels": pixels}), strict=True))
        own = {name: array for name, array in found.items() if name in taken}
        return [(positions, scored.run(None, {**own, **bank})[0]) for positions, bank in batches]

    return run
