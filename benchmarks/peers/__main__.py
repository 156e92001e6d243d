"""Measure PromptRay against its peers, in one process, taking turns; print tables, and write a result file.

    python -m benchmarks.peers carzero [--prompts 14,192]
    python -m benchmarks.peers dual-encoder
    python -m benchmarks.peers overhead
    python -m benchmarks.peers head-share [--prompts 14,192,1024]

Scores are held equal before anything is timed. Models have published sizes and random weights; they are
built in --work first. All contestants have the same threads and the same prepared image. Nothing is
downloaded. The exit code is 1 where scores differ; a target that is missed is stated.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.contest import show
from benchmarks.peers.result import PeersResult
from benchmarks.result_file import ROOT, commit, document, today
from benchmarks.timing import machine


@dataclass(frozen=True)
class Settings:
    """What was asked for.

    Attributes
    ----------
    work : Path
        Folder for bundles.
    small : bool
        Small towers: to see that it runs.
    prompts : list of int
    rounds : int
    threads : int
    """

    work: Path
    small: bool
    prompts: list[int]
    rounds: int
    threads: int


def measure_carzero(settings: Settings) -> dict[str, Any]:
    from benchmarks.peers import carzero, models

    recipe = models.carzero(settings.work, small=settings.small)
    comparisons = []
    for each in carzero.compare(
        recipe, models.bundle_of(recipe), settings.prompts, rounds=settings.rounds, threads=settings.threads
    ):
        show(each)
        comparisons.append(each)
    return {"model": _model("CARZero", settings), "comparisons": comparisons,
            "targets": carzero.targets(comparisons)}  # fmt: skip


def _model(name: str, settings: Settings) -> str:
    return f"{name}, {'small towers' if settings.small else 'published sizes'}, random weights"


#: Command -> what measures it, prompts and rounds by default.
COMMANDS: dict[str, tuple[Callable[[Settings], dict[str, Any]], str, int]] = {
    "carzero": (measure_carzero, "14,192", 21),
}


def main(arguments: list[str] | None = None) -> int:
    """Measure one question."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--prompts", metavar="N,N", help="numbers of prompts")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--small", action="store_true", help="small towers: to see that it runs")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "peers", help="folder for bundles")
    parser.add_argument("-o", "--output", type=Path, help="result file")
    options = parser.parse_args(arguments)
    measure, prompts, rounds = COMMANDS[options.command]
    settings = Settings(
        work=options.work,
        small=options.small,
        prompts=[int(number) for number in (options.prompts or prompts).split(",")],
        rounds=options.rounds or rounds,
        threads=options.threads,
    )
    found = measure(settings)
    for target in found.get("targets", ()):
        print(f"{'met' if target.met else 'MISSED'}: {target.what}: {target.wanted}, found {target.found}")
    result = PeersResult(commit=commit(), date=today(), machine=machine(), threads=settings.threads, **found)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_bytes(document(result))
        print(f"wrote {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
