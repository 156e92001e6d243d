"""How long from nothing to the first score: each figure of a new process."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from promptray.calibrate.bench.report import Start
from promptray.calibrate.bench.summary import median
from promptray.runtime.errors import PromptRayError

PARTS = ("import", "open", "first score", "whole process")
_TIMEOUT = 600  # seconds; a process that hangs must not hang the bench
# Isolated: nothing of the working folder or the environment is imported. What is measured is the promptray
# that measures, wherever it was found.
_INSIDE = """
import json, sys, time
asked = json.loads(sys.argv[1])
sys.path[:0] = asked["path"]
start = time.perf_counter()
from promptray import GpuOptions, Scorer
imported = time.perf_counter()
open_scorer = Scorer.open
if asked["options"].get("reduced_decode"):
    from promptray.runtime.measured_scorer import open_measured as open_scorer
if asked["gpu"] is not None:
    asked["options"]["gpu"] = GpuOptions(**asked["gpu"])
with open_scorer(asked["bundle"], **asked["options"]) as scorer:
    opened = time.perf_counter()
    scorer.score(asked["image"], **asked["declared"])
    scored = time.perf_counter()
    for _ in scorer.score_many(asked["more"], **asked["declared"]):
        pass
found = {"import": imported - start, "open": opened - imported, "first score": scored - opened}
if asked["memory"]:
    from promptray.calibrate.bench.memory import peak_bytes
    found["peak"] = peak_bytes()
print(json.dumps(found))
"""


def once(
    bundle: Path,
    image: Path,
    declared: Mapping[str, Any],
    options: Mapping[str, Any],
    *,
    gpu: Mapping[str, Any] | None = None,
    memory: bool = False,
    more: Sequence[Path] = (),
    python: Path = Path(sys.executable),
) -> dict[str, Any]:
    """Run one new process; seconds of :data:`PARTS`, and ``peak`` bytes where `memory` is asked for.

    Parameters
    ----------
    bundle, image : Path
    declared : mapping
        What is declared of the image.
    options : mapping
        Of ``Scorer.open``; plain values. A lower resolution needs no gate here.
    gpu : mapping, optional
        Fields of ``GpuOptions``.
    memory : bool
    more : sequence of Path
        Images that are scored after the first, for their memory; the whole process then takes longer.
    python : Path
        Another one measures the promptray that is installed for it.

    Raises
    ------
    PromptRayError
        ``bench.start`` where the process fails, or prints no figures.
    """
    root = str(Path(str(sys.modules["promptray"].__file__)).parents[1])
    own = python == Path(sys.executable) and root in sys.path
    asked = {
        "bundle": str(bundle), "image": str(image), "declared": dict(declared), "options": dict(options),
        "gpu": gpu, "memory": memory, "more": [str(each) for each in more], "path": [root] if own else [],
    }  # fmt: skip
    start = time.perf_counter()
    command = [str(python), "-I", "-c", _INSIDE, json.dumps(asked)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT)
    except subprocess.TimeoutExpired:
        raise _failed(f"no score after {_TIMEOUT} s") from None
    if done.returncode:
        raise _failed(f"exit code {done.returncode}")
    whole = time.perf_counter() - start
    return {**_figures(done.stdout), "whole process": whole}


def _figures(printed: bytes) -> dict[str, Any]:
    """Read the last line that a process printed; libraries may print others before it."""
    try:
        found = json.loads(printed.splitlines()[-1])
    except (IndexError, ValueError):
        found = None
    if not isinstance(found, dict) or not {"import", "open", "first score"} <= found.keys():
        raise _failed("no figures in the last line that it printed")
    return found


def _failed(found: str) -> PromptRayError:
    return PromptRayError(
        "bench.start",
        "a new process could not score the image that this one scored",
        found=found,
        cure="run `promptray score` with the same options, which says why",
    )


def start_of(taken: list[dict[str, Any]]) -> Start:
    """Return what new processes took, from at least one."""
    peaks = [each["peak"] for each in taken if each.get("peak") is not None]
    seconds = {name: median([each[name] for each in taken]) for name in PARTS}
    return Start(rounds=len(taken), seconds=seconds, peak_bytes=max(peaks, default=None))
