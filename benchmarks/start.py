"""How long until the first score? Import, opening a bundle, and a whole cold process.

    python -m benchmarks.start BUNDLE IMAGE --modality CR -o benchmarks/results/start.json

Each figure is taken in a fresh Python process, so nothing is warm but the file cache.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from functools import partial
from pathlib import Path

from benchmarks.timing import machine, save
from promptray.calibrate.bench.cold import once


def measure(
    bundle: Path, image: Path, modality: str = "", *, rounds: int, python: Path = Path(sys.executable)
) -> dict[str, dict[str, float]]:
    """Start `python` again and again; print and return median, least and greatest seconds of each part."""
    declared = {"modality": modality} if modality else {}
    begin = partial(once, bundle, image, declared, {"site": None}, python=python)
    begin()  # the first fills the file cache
    taken = [begin() for _ in range(rounds)]
    seconds = {}
    for name in taken[0]:
        values = [each[name] for each in taken]
        seconds[name] = {"median": statistics.median(values), "min": min(values), "max": max(values)}
        print(f"{name:14} median {seconds[name]['median']:.3f} s  ({min(values):.3f} to {max(values):.3f})")
    return seconds


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("image", type=Path)
    parser.add_argument("--modality", default="", help="for an image that states none")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()

    seconds = measure(options.bundle, options.image, options.modality, rounds=options.rounds)
    size = sum(path.stat().st_size for path in options.bundle.rglob("*") if path.is_file())
    if options.output:
        facts = {"machine": machine(), "bundle_bytes": size, "rounds": options.rounds, "seconds": seconds}
        save(options.output, facts)


if __name__ == "__main__":
    main()
