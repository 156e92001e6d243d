"""What PromptRay adds around the engine: from a tensor to scores, less the engine's own calls within.

Both are taken of the same call, so that what the network takes, and how that varies, is in neither's way. The
towers have few blocks: what surrounds the engine depends on the shapes that go in and out, and those are the
published ones.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnxruntime as ort

from benchmarks.peers.own import first_picture, score_exactly
from benchmarks.peers.result import Overhead, Target, interval
from promptray import Scorer
from promptray.runtime.backends import HOST

_WANTED_MS = 0.3
_WARM = 10
#: Every way to run a session.
_RUNS = ("run", "run_with_ort_values", "run_with_iobinding")


def overheads(
    model: str, path: Path, prompts: Sequence[int], *, rounds: int, threads: int
) -> Iterator[Overhead]:
    """Time calls of the scorer, and the engine within each, for each number of prompts.

    Raises
    ------
    AssertionError
        Where a call did not run image side and head: then the engine is not what was timed.
    """
    pixels = first_picture(path)
    with Scorer.open(path, backend=HOST, threads=threads, site=None) as scorer:
        for count in sorted(prompts):
            score_exactly(scorer, count)
            scored, engine = [], []
            with _timed_sessions() as within:
                for _ in range(_WARM + rounds):
                    within.clear()
                    start = time.perf_counter()
                    scorer.submit_pixels(pixels).result()
                    scored.append((time.perf_counter() - start) * 1000.0)
                    engine.append(sum(within) * 1000.0)
                    assert len(within) >= 2, f"{len(within)} calls of the engine"
            scored, engine = scored[_WARM:], engine[_WARM:]
            yield Overhead(
                model=model,
                prompts=count,
                rounds=rounds,
                engine=interval(engine),
                scorer=interval(scored),
                overhead=interval([whole - part for whole, part in zip(scored, engine, strict=True)]),
            )


@contextmanager
def _timed_sessions() -> Iterator[list[float]]:
    """Take the seconds of every call of ONNX Runtime's sessions."""
    within: list[float] = []

    def timed(run: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            try:
                return run(*arguments, **named)
            finally:
                within.append(time.perf_counter() - start)

        return call

    original = {name: getattr(ort.InferenceSession, name) for name in _RUNS}
    for name, run in original.items():
        setattr(ort.InferenceSession, name, timed(run))
    try:
        yield within
    finally:
        for name, run in original.items():
            setattr(ort.InferenceSession, name, run)


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
