"""Images a second of `score_many`, against its slowest stage alone.

    python -m benchmarks.throughput BUNDLE -o benchmarks/results/throughput.json

Films of a detector's size (see :mod:`benchmarks.film`) are prepared alone, scored alone, and go through
`score_many`, in turn. Stages share the cores: the least time is that of the slowest stage, or the work of
both divided by the cores, whichever is longer.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.file_to_input import SAMPLE
from benchmarks.film import enlarged, write_films
from benchmarks.timing import interleaved, machine, report, save
from promptray.runtime.cores import host_threads
from promptray.runtime.result import Result
from promptray.runtime.scorer import Scorer

SYNTAXES = ("uncompressed", "JPEG 2000 lossless", "JPEG-LS lossless")


def measure(scorer: Scorer, files: Sequence[Path], *, ahead: int, rounds: int) -> dict[str, Any]:
    """Time the stages and the pipeline on the same files; milliseconds are for all of them."""
    prepared = [scorer.prepare(path) for path in files]

    def prepare() -> None:
        for path in files:
            scorer.prepare(path)

    def infer() -> None:
        for each in prepared:
            scorer.infer(each)

    def pipeline() -> None:
        outcomes = list(scorer.score_many(files, ahead=ahead))
        assert all(isinstance(outcome, Result) for outcome in outcomes)

    stages: dict[str, Callable[[], None]] = {"prepare": prepare, "infer": infer, "score_many": pipeline}
    found = interleaved(stages, rounds=rounds, baseline="score_many")
    cores = host_threads(None)
    work = sum(_core_seconds(stages[name]) for name in ("prepare", "infer")) * 1e3 / cores
    slowest = max(found[name]["median_ms"] for name in ("prepare", "infer"))
    whole = found["score_many"]["median_ms"]
    return {
        "stages": found,
        "images_per_second": len(files) / whole * 1e3,
        "share_of_slowest_stage": slowest / whole,
        "work_over_cores_ms": work,
        "share_of_attainable": max(slowest, work) / whole,
    }


def _core_seconds(run: Callable[[], None]) -> float:
    """Return what a run takes of all cores together."""
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--size", type=int, nargs=2, default=(2500, 2000), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--threads", type=int, help="of inference (default: all cores)")
    parser.add_argument("--decode-threads", type=int, default=1, help="of JPEG 2000 (OPJ_NUM_THREADS)")
    parser.add_argument("--ahead", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    os.environ["OPJ_NUM_THREADS"] = str(options.decode_threads)
    found = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        Scorer.open(options.bundle, backend="onnxruntime-cpu", site=None, threads=options.threads) as scorer,
    ):
        films = write_films(enlarged(SAMPLE, *options.size), Path(folder), SYNTAXES)
        for name in SYNTAXES:
            files = [films[name]] * options.images
            found[name] = measure(scorer, files, ahead=options.ahead, rounds=options.rounds)
            report(f"{name}, {options.images} images", found[name]["stages"])
            print(
                f"  {found[name]['images_per_second']:.1f} images a second: "
                f"{found[name]['share_of_slowest_stage']:.0%} of the slowest stage alone, "
                f"{found[name]['share_of_attainable']:.0%} of what these cores attain"
            )
    if options.output:
        asked = {name: getattr(options, name) for name in ("images", "threads", "decode_threads", "ahead")}
        save(options.output, {"machine": machine(), **asked, "rounds": options.rounds, "syntaxes": found})


if __name__ == "__main__":
    main()
