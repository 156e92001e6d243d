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
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.peers import contest, models
from benchmarks.peers.models import Size
from benchmarks.peers.result import Overhead, PeersResult
from benchmarks.result_file import ROOT, commit, document, today
from benchmarks.timing import machine

T = TypeVar("T")


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

    @property
    def size(self) -> Size:
        """Of the towers."""
        return "small" if self.small else "published"


def measure_carzero(settings: Settings) -> dict[str, Any]:
    from benchmarks.peers import carzero

    found = _shown(carzero.compare(*_built("carzero", settings), **_how(settings)), contest.show)
    return {"comparisons": found, "targets": carzero.targets(found)}


def measure_dual_encoder(settings: Settings) -> dict[str, Any]:
    from benchmarks.peers import dual_encoder

    found = _shown(dual_encoder.compare(*_built("biomedclip", settings), **_how(settings)), contest.show)
    return {"comparisons": found, "targets": dual_encoder.targets(found)}


def measure_overhead(settings: Settings) -> dict[str, Any]:
    from benchmarks.peers import overhead

    size: Size = "small" if settings.small else "thin"
    found: list[Overhead] = []
    for family in ("biomedclip", "carzero"):
        _, bundle = models.built(family, size, settings.work)
        found += _shown(overhead.overheads(family, bundle, **_how(settings)), overhead.show)
    return {"overheads": found, "targets": overhead.targets(found)}


def measure_head_share(settings: Settings) -> dict[str, Any]:
    from benchmarks.peers import head_share

    _, bundle = _built("carzero", settings)
    found = _shown(head_share.head_shares(bundle, **_how(settings)), head_share.show)
    return {"head_shares": found, "targets": head_share.targets(found)}


def _built(family: str, settings: Settings) -> tuple[Path, Path]:
    return models.built(family, settings.size, settings.work)


def _how(settings: Settings) -> dict[str, Any]:
    return {"prompts": settings.prompts, "rounds": settings.rounds, "threads": settings.threads}


def _shown(found: Iterable[T], show: Callable[[T], None]) -> list[T]:
    """Print each as it comes."""
    kept = []
    for each in found:
        show(each)
        kept.append(each)
    return kept


#: Command -> what measures it, prompts and rounds by default.
COMMANDS: dict[str, tuple[Callable[[Settings], dict[str, Any]], str, int]] = {
    "carzero": (measure_carzero, "14,192", 21),
    "dual-encoder": (measure_dual_encoder, "14", 61),
    "overhead": (measure_overhead, "100", 301),
    "head-share": (measure_head_share, "14,192,1024", 21),
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
    thin = options.command == "overhead" and not options.small
    result = PeersResult(
        commit=commit(),
        date=today(),
        machine=machine(),
        threads=settings.threads,
        towers="thin" if thin else settings.size,
        **measure(settings),
    )
    for target in result.targets:
        print(f"{'met' if target.met else 'MISSED'}: {target.what}: {target.wanted}, found {target.found}")
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_bytes(document(result))
        print(f"wrote {options.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
