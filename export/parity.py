"""The fp32 gate: exported graphs give the original's numbers, whatever the shapes of the call."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.answers import Answers, spread_of
from promptray.runtime.backends import load_backend
from promptray.runtime.bundle.manifest import Head
from promptray.runtime.bundle.validate import LARGEST_TOLERANCE
from promptray.runtime.errors import BuildError
from promptray.runtime.golden import read_golden
from promptray.runtime.graphs import REPRODUCIBLE_PROMPTS, BundleContent, Graphs, own_bank
from promptray.runtime.preprocess import normalise
from promptray.runtime.prompts import PromptBank

#: Of the golden scores' standard deviation: a wider bound would let another activation function by.
_LARGEST_SHARE = 0.01
_VERSIONS = "compare the installed versions with constraints.txt; no bundle was written"
_LONG_ROWS = (
    "the classifier's rows are too long for float32: train it with more regularisation, on features "
    "that were brought to one scale"
)


def check_backends(
    draft: BundleContent, backends: Sequence[str], progress: Callable[[float], None] = lambda _: None
) -> dict[str, Any]:
    """Hold the graphs on every backend that they are to be for (see :func:`check_parity`).

    Parameters
    ----------
    draft : BundleContent
    backends : sequence of str
        At least one; the report is the first one's, and says the same of each further one.
    progress : callable
        Called with the fraction done.

    Raises
    ------
    BuildError
        ``gate.failed``, naming the backend.
    """
    first, *others = [
        check_parity(draft, name, partial(_tell, progress, number, len(backends)))
        for number, name in enumerate(backends)
    ]
    return {**first, "backends": [{"backend": each["backend"], "heads": each["heads"]} for each in others]}


def check_parity(
    draft: BundleContent, backend: str, progress: Callable[[float], None] = lambda _: None
) -> dict[str, Any]:
    """Compare the graphs with the original's golden scores and measure the noise between call shapes.

    Parameters
    ----------
    draft : BundleContent
        Everything of the bundle but the report itself.
    backend : str
        What the graphs run on.
    progress : callable
        Called with the fraction done.

    Returns
    -------
    dict
        Content of ``parity.json``.

    Raises
    ------
    BuildError
        ``gate.failed`` with the comparison that failed, its bound and what was found.
    """
    manifest = draft.manifest
    pixels = normalise(read_golden(draft).pictures, manifest.preprocessing)
    runs = _Runs(draft, backend, pixels)
    reports = []
    for number, head in enumerate(manifest.heads):
        tell = partial(_tell, progress, number, len(manifest.heads))
        reports.append(_Head(draft, head, runs).report(tell))
    report = {
        "format": "promptray-parity",
        "format_version": 3,
        "graphs": "fp32",
        "backend": f"{backend} {runs.one_thread.backend.version}",
        "machine": f"{platform.system()} {platform.machine()}",
        "images": len(pixels),
        "heads": reports,
    }
    for each in reports:
        _require_passed(each, f"{manifest.name}, head {each['head']}, {report['backend']}")
    return report


def _tell(progress: Callable[[float], None], number: int, count: int, part: float) -> None:
    progress((number + part) / count)


def _require_passed(report: dict[str, Any], artefact: str) -> None:
    """Refuse a head whose graph failed; "not within" rather than "beyond": NaN is neither, and must fail."""
    bound, map_bound, original = (
        report["score_tolerance"],
        report["map_tolerance"],
        report["against_original"],
    )
    compared = [(original["against"], original), *((item["varied"], item) for item in report["noise"])]
    failed = [name for name, item in compared if not item["score_error"] <= bound]
    if map_bound is not None:
        failed += [f"{name}: maps" for name, item in compared if not item["map_error"] <= map_bound]
    if failed:
        worst = np.max([item["score_error"] for _, item in compared])
        expected, found = f"scores within {bound:g}", f"scores off by {worst:.3g}"
        if map_bound is not None:
            expected += f", maps within {map_bound:g}"
            found += f", maps by {np.max([item['map_error'] for _, item in compared]):.3g}"
        raise BuildError(
            "gate.failed",
            f"the exported graphs disagree: {', '.join(failed)}",
            artefact=artefact,
            expected=expected,
            found=found,
            cure=_LONG_ROWS if bound >= LARGEST_TOLERANCE else _VERSIONS,
        )
    share = report["tolerance_share"]
    if not share <= _LARGEST_SHARE:
        raise BuildError(
            "gate.failed",
            "the gate could not tell a wrong graph: the golden scores hardly differ from image to image",
            artefact=artefact,
            expected=f"a bound of at most {_LARGEST_SHARE:.0%} of their standard deviation",
            found=f"{share:.2%}",
            cure="give golden images that differ (recipe key golden); of a trained classifier, whose rows "
            "are then too short, train it with less regularisation",
        )


class _Run:
    """Graphs on one backend setting, and the image features that every head takes of them."""

    def __init__(
        self,
        draft: BundleContent,
        backend: str,
        pixels: Any,
        *,
        threads: int,
        prompts_per_batch: int | None = None,
    ) -> None:
        self.backend = load_backend(backend, threads=threads)
        self._graphs = Graphs(draft, self.backend, prompts_per_batch=prompts_per_batch)
        self._pixels = pixels
        self._features: dict[tuple[int, int], Any] = {}

    def score(self, head: Head, bank: PromptBank, first: int, last: int) -> Answers:
        """Return what a head gives of the golden pictures from `first` to before `last`, as one batch."""
        features = self._features.get((first, last))
        if features is None:
            features = self._graphs.features(self._pixels[first:last])
            self._features[first, last] = features
        return Answers(*self._graphs.bind(head, bank).run(features))


class _Runs:
    """What the heads are compared on."""

    def __init__(self, draft: BundleContent, backend: str, pixels: Any) -> None:
        self.images = len(pixels)
        self.one_thread = _Run(draft, backend, pixels, threads=1)
        self.two_threads = _Run(draft, backend, pixels, threads=2)
        self.fixed_shapes = _Run(draft, backend, pixels, threads=1, prompts_per_batch=REPRODUCIBLE_PROMPTS)


class _Head:
    """A head against the original, and against itself in other shapes."""

    def __init__(self, draft: BundleContent, head: Head, runs: _Runs) -> None:
        self._head = head
        self._runs = runs
        self._bank = own_bank(draft, head)
        self._golden = read_golden(draft).answers[head.name]
        self._against = "original" if draft.manifest.provenance.distilled is None else "student"

    def report(self, progress: Callable[[float], None]) -> dict[str, Any]:
        """Return the head's part of ``parity.json``."""
        head, images = self._head, self._runs.images
        alone = [self._runs.one_thread.score(head, self._bank, n, n + 1) for n in range(images)]
        progress(0.4)
        answers = Answers(
            np.concatenate([each.logits for each in alone]),
            np.concatenate([each.maps for each in alone]) if head.map else None,
        )
        score_error, map_error = self._golden.errors(answers.logits, answers.maps)
        return {
            "head": head.name,
            "findings": len(self._bank),
            "decisions": images * len(self._bank),
            "score_tolerance": head.score_tolerance,
            "tolerance_share": _share(head.score_tolerance, self._golden.logits),
            "map_tolerance": head.map.tolerance if head.map else None,
            "against_original": {
                "against": f"{self._against} (torch fp32, one image at a time)",
                "score_error": score_error,
                "score_error_mean": float(np.abs(answers.logits - self._golden.logits).mean()),
                "map_error": map_error if head.map else None,
            },
            "noise": self._noise(answers, progress),
        }

    def _noise(self, answers: Answers, progress: Callable[[float], None]) -> list[dict[str, Any]]:
        """Vary what must not matter, one thing at a time, on the first images; largest difference of each."""
        head, bank, runs = self._head, self._bank, self._runs
        few = min(4, runs.images)
        one = answers.first(1)
        found: list[dict[str, Any]] = []

        def measure(varied: str, scores: Answers, expected: Answers) -> None:
            score_error, map_error = expected.errors(scores.logits, scores.maps)
            errors = {"score_error": score_error, "map_error": map_error if head.map else None}
            found.append({"varied": varied, **errors})
            progress(0.4 + 0.12 * len(found))

        batch = runs.one_thread.score(head, bank, 0, few)
        measure(f"batch of {few} images instead of 1", batch, _part(answers, slice(few)))
        backwards = runs.one_thread.score(head, PromptBank(bank.rule, reversed(bank.entries)), 0, 1)
        measure("order of the prompts", backwards, _part(one, slice(1), slice(None, None, -1)))
        if head.set == "free":  # the findings of a fixed set are never alone
            step = max(1, len(bank) // 8)
            singles = [PromptBank(bank.rule, [entry]) for entry in bank.entries[::step]]
            alone = [runs.one_thread.score(head, single, 0, 1) for single in singles]
            together = Answers(
                np.concatenate([each.logits for each in alone], axis=1),
                np.concatenate([each.maps for each in alone], axis=1) if head.map else None,
            )
            varied = "a prompt alone instead of with the others"
            measure(varied, together, _part(one, slice(1), slice(None, None, step)))
        measure("2 threads instead of 1", runs.two_threads.score(head, bank, 0, 1), one)
        measure("reproducible mode's fixed shapes", runs.fixed_shapes.score(head, bank, 0, 1), one)
        return found


def _part(answers: Answers, pictures: slice, findings: slice = slice(None)) -> Answers:
    maps = None if answers.maps is None else answers.maps[pictures, findings]
    return Answers(answers.logits[pictures, findings], maps)


def _share(tolerance: float, logits: NDArray[np.float32]) -> float:
    """Return a bound as a share of what the scores (images, findings) differ by from image to image."""
    spread = spread_of(logits)
    return tolerance / spread if spread else math.inf
