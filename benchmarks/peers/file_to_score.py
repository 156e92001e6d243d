"""From a file to scores: the runtime beside what most people write, on the same bundle in the same run.

    python -m benchmarks.peers.file_to_score BUNDLE -o benchmarks/results/file_to_score.json

The peer is pydicom with its pixel plugins, a window in NumPy, OpenCV's resize, and ONNX Runtime as it comes,
fed with the same graphs and the same bank (see :mod:`benchmarks.usual_stack`): text is encoded beforehand in
both. The film is JPEG 2000 lossless by default. The peer decodes it with pylibjpeg, which knows no threads;
without ``--decode-threads 1`` ours has every core for it.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pydicom
from numpy.typing import NDArray

from benchmarks import usual_stack
from benchmarks.file_to_input import CARZERO, SAMPLE
from benchmarks.film import NOISE, enlarged, write_films
from benchmarks.peers.contest import PAUSE
from benchmarks.timing import Laps, interleaved_stages, machine, report_stages, save
from promptray.runtime.backends import HOST
from promptray.runtime.bundle import Bundle
from promptray.runtime.graph_choice import gated_graph
from promptray.runtime.graphs import own_bank
from promptray.runtime.measured_scorer import open_measured
from promptray.runtime.scorer import Scorer

SYNTAX = "JPEG 2000 lossless"
Timed = tuple[NDArray[np.float32], dict[str, float]]


class Usual:
    """A bundle's image side and first head in ONNX Runtime with its defaults, behind the usual stack."""

    def __init__(self, path: Path) -> None:
        bundle = Bundle.open(path)
        (head,) = bundle.manifest.heads
        self._image = _session(bundle, "image", None)
        self._head = _session(bundle, "head", head.name)
        bank = own_bank(bundle, head)
        self._batches, self._findings = bank.batches(), len(bank)

    def score(self, path: Path) -> Timed:
        """Return the logits of all findings, and milliseconds by stage."""
        pixels, stages = usual_stack.network_input(path)
        laps = Laps()
        features = _run(self._image, {"pixels": pixels})
        laps.end("image")
        logits = np.empty(self._findings, np.float32)
        for batch in self._batches:
            logits[batch.positions] = _run(self._head, {**features, **batch.tensors})["logits"][0]
        laps.end("head")
        return logits, {**stages, **laps.stages}


def _session(bundle: Bundle, role: str, head: str | None) -> ort.InferenceSession:
    facts = gated_graph(bundle.manifest, HOST, role, head)
    return ort.InferenceSession(bundle.read(facts.file), providers=["CPUExecutionProvider"])


def _run(session: ort.InferenceSession, tensors: dict[str, Any]) -> dict[str, Any]:
    names = [output.name for output in session.get_outputs()]
    wanted = {each.name: tensors[each.name] for each in session.get_inputs()}
    return dict(zip(names, session.run(names, wanted), strict=True))


def _scored(scorer: Scorer, path: Path) -> Timed:
    result = scorer.score(path)
    logits = [score.logit for score in result.scores.values()]
    stages = {stage: each for stage, each in result.timing.items() if stage != "total"}
    return np.array(logits, np.float32), stages


def measure(
    bundle: Path, film: Path, *, rounds: int, threads: int | None = None, reduced_decode: bool = False
) -> dict[str, Any]:
    """Time both on one film; the ratio is the peer's time over ours, round by round.

    Raises
    ------
    AssertionError
        Where logits differ by more than the bundle's own bound; with `reduced_decode` they are only stated.
    """
    usual = Usual(bundle)
    with open_measured(
        bundle, backend=HOST, site=None, threads=threads, reduced_decode=reduced_decode
    ) as scorer:
        assert scorer.bundle.manifest.preprocessing == CARZERO, (
            "the usual stack prepares images as CARZero does"
        )
        (head,) = scorer.bundle.manifest.heads
        bound = head.score_tolerance
        runs: dict[str, Callable[[], Timed]] = {
            "promptray": lambda: _scored(scorer, film),
            "usual": lambda: usual.score(film),
        }
        apart = float(np.abs(runs["promptray"]()[0] - runs["usual"]()[0]).max())
        if not reduced_decode and not apart <= bound:
            raise AssertionError(f"the usual stack's logits differ by {apart}, more than {bound}")
        found = interleaved_stages(
            {name: lambda run=run: run()[1] for name, run in runs.items()},  # type: ignore[misc]
            rounds=rounds,
            baseline="promptray",
            pause=PAUSE,
        )
    report_stages(f"{film.stem}: file to {len(scorer.prompts)} scores", found)
    ratio = found["total"]["usual"]
    print(f"  {ratio['ratio']:.2f} times as fast ({ratio['ratio_q1']:.2f} to {ratio['ratio_q3']:.2f})")
    return {
        "bundle": scorer.bundle.manifest.name, "largest_logit_difference": apart,
        "logit_tolerance": None if reduced_decode else bound, "peer": peer(film), **found,
    }  # fmt: skip


def peer(film: Path) -> dict[str, Any]:
    """Say what of the usual stack decodes a film, and its versions."""
    syntax = pydicom.dcmread(film, stop_before_pixels=True).file_meta.TransferSyntaxUID
    return {"decoding_plugin": usual_stack.plugin_for(syntax), "versions": usual_stack.versions()}


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "bundles", type=Path, nargs="+", metavar="BUNDLE", help="with CARZero's preprocessing"
    )
    parser.add_argument("--syntax", default=SYNTAX)
    parser.add_argument("--size", type=int, nargs=2, default=(2500, 2000), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--threads", type=int, help="of inference here (default: all cores, as the peer's)")
    parser.add_argument("--decode-threads", type=int, default=os.cpu_count(), help="ours; pylibjpeg has one")
    parser.add_argument("--reduced-decode", action="store_true", help="of ours: logits then differ a little")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    os.environ["OPJ_NUM_THREADS"] = str(options.decode_threads)
    with tempfile.TemporaryDirectory() as folder:
        film = write_films(enlarged(SAMPLE, *options.size), Path(folder), [options.syntax])[options.syntax]
        settings = {name: getattr(options, name) for name in ("rounds", "threads", "reduced_decode")}
        found = [measure(bundle, film, **settings) for bundle in options.bundles]
    if options.output:
        film_facts = {"syntax": options.syntax, "size": options.size, "bits": 12, "noise_levels": NOISE}
        settings["decode_threads"] = options.decode_threads
        save(options.output, {"machine": machine(), "film": film_facts, **settings, "bundles": found})


if __name__ == "__main__":
    main()
