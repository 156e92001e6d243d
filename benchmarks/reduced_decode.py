"""Scores with `reduced_decode` beside those of whole pictures: what it saves, and what it does to logits.

    python -m benchmarks.reduced_decode BUNDLE -o benchmarks/results/reduced_decode.json

Every film of a folder is enlarged to a detector's size and written as JPEG 2000 lossless. Differences are in
logits, beside how far apart the films' own logits of the same finding are.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.file_to_input import SAMPLE
from benchmarks.film import NOISE, enlarged, write_films
from benchmarks.timing import interleaved_stages, machine, report_stages, save
from promptray.runtime.backends import HOST
from promptray.runtime.measured_scorer import open_measured
from promptray.runtime.scorer import Scorer

SYNTAX = "JPEG 2000 lossless"


def write_all(samples: Sequence[Path], folder: Path, rows: int, columns: int) -> list[Path]:
    """Write the enlarged films; each in its own folder."""
    return [
        write_films(enlarged(sample, rows, columns), folder / sample.stem, [SYNTAX])[SYNTAX]
        for sample in samples
    ]


def compare(bundle: Path, films: Sequence[Path]) -> dict[str, Any]:
    """Return how far logits move, over all films and findings."""
    (whole, _), (reduced, halved) = (_logits(bundle, films, reduced=each) for each in (False, True))
    assert halved == len(films), "a film was decoded whole"
    moved = np.abs(reduced - whole)
    spread = whole.std(axis=0)  # over films, of each finding
    ranks = [np.argsort(np.argsort(each, axis=0), axis=0) for each in (whole, reduced)]
    same_order = [float(np.corrcoef(a, b)[0, 1]) for a, b in zip(ranks[0].T, ranks[1].T, strict=True)]
    return {
        "films": len(films),
        "findings": whole.shape[1],
        "largest_logit_difference": float(moved.max()),
        "mean_logit_difference": float(moved.mean()),
        "largest_difference_over_spread": float((moved / spread).max()),
        "mean_difference_over_spread": float((moved / spread).mean()),
        "least_rank_correlation": min(same_order),
    }


def _logits(bundle: Path, films: Sequence[Path], *, reduced: bool) -> tuple[NDArray[np.float64], int]:
    """Return logits (films, findings), and how many films were decoded at a lower resolution."""
    with open_measured(bundle, backend=HOST, site=None, reduced_decode=reduced) as scorer:
        results = [scorer.score(film) for film in films]
    halved = sum(any(each.code == "reduced-decode" for each in result.notices) for result in results)
    return np.array([[score.logit for score in result.scores.values()] for result in results]), halved


def times(bundle: Path, film: Path, rounds: int) -> dict[str, Any]:
    """Time both from file to scores."""
    with (
        Scorer.open(bundle, backend=HOST, site=None) as whole,
        open_measured(bundle, backend=HOST, site=None, reduced_decode=True) as reduced,
    ):

        def run(scorer: Scorer) -> dict[str, float]:
            return {name: each for name, each in scorer.score(film).timing.items() if name != "total"}

        alternatives = {"whole": lambda: run(whole), "reduced": lambda: run(reduced)}
        return interleaved_stages(alternatives, rounds=rounds, baseline="whole")


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--films", type=Path, default=SAMPLE.parent, help="a folder of PNG films")
    parser.add_argument("--size", type=int, nargs=2, default=(2500, 2000), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        films = write_all(sorted(options.films.glob("*.png")), Path(folder), *options.size)
        agreement = compare(options.bundle, films)
        timed = times(options.bundle, films[0], options.rounds)
    for name, value in agreement.items():
        print(f"  {name.replace('_', ' '):34} {value:.4g}")
    report_stages(f"{SYNTAX}: file to scores", timed)
    if options.output:
        film = {"size": options.size, "bits": 12, "noise_levels": NOISE}
        facts = {"machine": machine(), "film": film, "rounds": options.rounds}
        save(options.output, {**facts, "agreement": agreement, **timed})


if __name__ == "__main__":
    main()
