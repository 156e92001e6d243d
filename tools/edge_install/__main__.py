"""Install promptray in an empty environment for each Python at hand, and measure what that brings.

    python -m tools.edge_install BUNDLE [--python X.Y]... [--rounds N] [-o FILE]

`make demo` builds a bundle to score with. For each Python: size on the disk, every distribution with its
licence, every file over 5 MB, and the time of import, opening and first score in cold processes. The
committed figures are of

    python -m tools.edge_install demo-output/children.bundle -o benchmarks/results/edge_install.json
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.start import measure
from benchmarks.timing import machine, save
from tools.edge_install.environment import MEGABYTE, Environment
from tools.edge_install.interpreters import find_interpreter
from tools.edge_install.own_wheel import own_wheel
from tools.edge_install.targets import PYTHONS, Refused

IMAGE = Path(__file__).resolve().parents[2] / "examples" / "samples" / "bacterial-1.dcm"


def examine(environment: Environment, bundle: Path, image: Path, rounds: int) -> dict[str, Any]:
    """Print and return the facts of one environment."""
    size, weights, large = environment.size(), environment.weights(), environment.large_files()
    print(f"{size / MEGABYTE:.1f} MB without pip and setuptools, {len(weights)} distributions")
    for each in sorted(weights, key=lambda weight: -weight.size):
        print(f"  {each.name:22} {each.version:12} {each.size / MEGABYTE:7.1f} MB  {each.licence}")
    print("files over 5 MB")
    for path, (name, content) in large.items():
        print(f"  {content / MEGABYTE:7.1f} MB  {name}: {path}")
    return {
        "size": size,
        "distributions": [asdict(each) for each in weights],
        "files_over_5_mb": {path: content for path, (_, content) in large.items()},
        "seconds": measure(bundle, image, rounds=rounds, python=environment.python),
    }


def main() -> int:
    """Try every Python that was asked for and is here."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--image", type=Path, default=IMAGE, help="a DICOM file that the bundle scores")
    parser.add_argument("--python", action="append", choices=PYTHONS, help="default: all")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    installs: dict[str, Any] = {}
    try:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            wheel = own_wheel(folder)
            for python in options.python or PYTHONS:
                interpreter = find_interpreter(python)
                if interpreter is None:
                    print(f"\nnot run: no Python {python} here", flush=True)
                    continue
                print(f"\nPython {python}: installing {wheel.name} into an empty environment", flush=True)
                environment = Environment.create(interpreter, folder / python)
                environment.install(wheel)
                installs[python] = examine(environment, options.bundle, options.image, options.rounds)
    except Refused as error:
        print(error, file=sys.stderr)
        return 1
    if options.output:
        save(options.output, {"machine": machine(), "rounds": options.rounds, "installs": installs})
    return 0


if __name__ == "__main__":
    sys.exit(main())
