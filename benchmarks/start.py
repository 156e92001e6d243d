"""How long until the first score? Import, opening a bundle, and a whole cold process.

    python -m benchmarks.start BUNDLE IMAGE --modality CR -o benchmarks/results/start.json

Each figure is taken in a fresh Python process, so nothing is warm but the file cache.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.timing import machine, save

_INSIDE = """
import json, sys, time
start = time.perf_counter()
from promptray import Scorer
imported = time.perf_counter()
with Scorer.open(sys.argv[1], site=None) as scorer:
    opened = time.perf_counter()
    scorer.score(sys.argv[2], modality=sys.argv[3] or None)
    scored = time.perf_counter()
print(json.dumps({"import": imported - start, "open": opened - imported, "first score": scored - opened}))
"""


def once(bundle: Path, image: Path, modality: str, python: Path) -> dict[str, float]:
    """Run one cold process; seconds."""
    start = time.perf_counter()
    # Isolated: the promptray that is measured is the one installed for `python`, not the working folder's.
    command = [str(python), "-I", "-c", _INSIDE, str(bundle), str(image), modality]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return {**found, "whole process": time.perf_counter() - start}


def measure(
    bundle: Path, image: Path, modality: str = "", *, rounds: int, python: Path = Path(sys.executable)
) -> dict[str, dict[str, float]]:
    """Start `python` again and again; print and return median, least and greatest seconds of each part."""
    once(bundle, image, modality, python)  # the first fills the file cache
    taken = [once(bundle, image, modality, python) for _ in range(rounds)]
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
