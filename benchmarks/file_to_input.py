"""From a file to the network's input: milliseconds by stage, for each transfer syntax.

    python -m benchmarks.file_to_input -o benchmarks/results/file_to_input.json

A film of 12 bits is written in every syntax (see :mod:`benchmarks.film`) and read by the runtime and by the
usual stack (:mod:`benchmarks.usual_stack`) in turn, on one core, up to CARZero's network input. Of lossless
files both inputs must be equal.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import usual_stack
from benchmarks.film import NOISE, enlarged, write_films
from benchmarks.timing import Laps, interleaved_stages, machine, report_stages, save
from promptray.runtime.bundle.image_rules import (
    CentreCrop,
    Door,
    Greyscale,
    Normalise,
    PadSquare,
    Preprocessing,
    ResizeLongerSide,
)
from promptray.runtime.door import open_picture
from promptray.runtime.preprocess import preprocess

SAMPLE = Path(__file__).parents[1] / "examples" / "samples" / "normal-1.png"
DOOR = Door(modalities=["CR", "DX"], refused_body_parts=["BREAST"])
CARZERO = Preprocessing(
    greyscale=Greyscale(),
    steps=[
        ResizeLongerSide(size=usual_stack.SIZE),
        PadSquare(size=usual_stack.SIZE),
        CentreCrop(size=usual_stack.SEEN),
    ],
    normalise=Normalise(mean=[usual_stack.MEAN], std=[usual_stack.STD]),
    channels=1,
    height=usual_stack.SEEN,
    width=usual_stack.SEEN,
)

Made = tuple[NDArray[np.float32], dict[str, float]]


def network_input(path: Path) -> Made:
    """Return the network's input as the runtime makes it, and milliseconds by stage."""
    picture = open_picture(path, DOOR, CARZERO.greyscale)
    laps = Laps()
    made = preprocess(picture.shown, CARZERO)
    laps.end("resize")
    return made.pixels, {**picture.timing, **laps.stages}


def measure(folder: Path, sample: Path, rows: int, columns: int, rounds: int) -> dict[str, Any]:
    """Write the films into `folder` and time both chains on each."""
    found = {}
    for name, path in write_films(enlarged(sample, rows, columns), folder).items():
        (ours, _), (usual, _) = network_input(path), usual_stack.network_input(path)
        apart = float(np.abs(ours - usual).max())
        if "8 bit" not in name:  # decoders of lossy JPEG may differ by a level
            assert apart == 0.0, name
        chains: dict[str, Callable[[], dict[str, float]]] = {
            "usual": lambda path=path: usual_stack.network_input(path)[1],  # type: ignore[misc]
            "promptray": lambda path=path: network_input(path)[1],  # type: ignore[misc]
        }
        timed = interleaved_stages(chains, rounds=rounds, baseline="usual")
        size = path.stat().st_size
        report_stages(f"{name}, {size / 1e6:.1f} MB", timed)
        found[name] = {"bytes": size, "largest_difference": apart, **timed}
    return found


def one_core() -> None:
    """Keep this process on one core, where the system can."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sample", type=Path, nargs="?", default=SAMPLE, help="a PNG that is enlarged")
    parser.add_argument("--size", type=int, nargs=2, default=(2500, 2000), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    one_core()
    rows, columns = options.size
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), options.sample, rows, columns, options.rounds)
    if options.output:
        film = {"sample": options.sample.name, "size": options.size, "bits": 12, "noise_levels": NOISE}
        save(
            options.output, {"machine": machine(), "film": film, "rounds": options.rounds, "syntaxes": found}
        )


if __name__ == "__main__":
    main()
