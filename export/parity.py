"""The fp32 gate: exported graphs give the original's numbers, whatever the shapes of the call."""

from __future__ import annotations

import platform
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from promptray.runtime.backends import load_backend
from promptray.runtime.bundle.manifest import Head
from promptray.runtime.errors import BuildError
from promptray.runtime.golden import read_golden
from promptray.runtime.graphs import REPRODUCIBLE_PROMPTS, BundleContent, Graphs, own_bank
from promptray.runtime.preprocess import normalise
from promptray.runtime.prompts import PromptBank


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
    runs = _Runs(draft, backend)
    reports = []
    for number, head in enumerate(manifest.heads):
        tell = partial(_tell, progress, number, len(manifest.heads))
        reports.append(_Head(draft, head, runs, pixels).report(tell))
    report = {
        "format": "promptray-parity",
        "format_version": 2,
        "graphs": "fp32",
        "backend": f"{backend} {runs.one_thread.backend.version}",
        "machine": f"{platform.system()} {platform.machine()}",
        "images": len(pixels),
        "heads": reports,
    }
    for each in reports:
        _require_passed(each, f"{manifest.name}, head {each['head']}, {report['backend']}")
    return report


def _tell(progress: Callable[[float], None], head: int, heads: int, part: float) -> None:
    progress((head + part) / heads)


def _require_passed(report: dict[str, Any], artefact: str) -> None:
    """Refuse a head whose graph failed; "not within" rather than "beyond": NaN is neither, and must fail."""
    bound, original = report["score_tolerance"], report["against_original"]
    failed = [] if original["score_error"] <= bound else [original["against"]]
    map_error, map_bound = original["map_error"], report["map_tolerance"]
    if map_bound is not None and not map_error <= map_bound:
        failed.append(f"{original['against']}: maps")
    failed += [item["varied"] for item in report["noise"] if not item["score_error"] <= bound]
    if failed:
        worst = np.max([original["score_error"], *(item["score_error"] for item in report["noise"])])
        has_maps = map_bound is not None
        raise BuildError(
            "gate.failed",
            f"the exported graphs disagree: {', '.join(failed)}",
            artefact=artefact,
            expected=f"scores within {bound:g}" + (f", maps within {map_bound:g}" if has_maps else ""),
            found=f"scores off by {worst:.3g}" + (f", maps by {map_error:.3g}" if has_maps else ""),
            cure="compare the installed versions with constraints.txt; no bundle was written",
        )


class _Run:
    """Graphs on one backend setting."""

    def __init__(
        self, draft: BundleContent, backend: str, *, threads: int, prompts_per_batch: int | None = None
    ) -> None:
        self.backend = load_backend(backend, threads=threads)
        self.graphs = Graphs(draft, self.backend, prompts_per_batch=prompts_per_batch)

    def score(self, head: Head, bank: PromptBank, pixels: Any) -> tuple[Any, Any]:
        return self.graphs.bind(head, bank).run(self.graphs.features(pixels))


class _Runs:
    """What the heads are compared on."""

    def __init__(self, draft: BundleContent, backend: str) -> None:
        self.one_thread = _Run(draft, backend, threads=1)
        self.two_threads = _Run(draft, backend, threads=2)
        self.fixed_shapes = _Run(draft, backend, threads=1, prompts_per_batch=REPRODUCIBLE_PROMPTS)


class _Head:
    """A head against the original, and against itself in other shapes."""

    def __init__(self, draft: BundleContent, head: Head, runs: _Runs, pixels: Any) -> None:
        self._head = head
        self._runs = runs
        self._pixels = pixels
        self._bank = own_bank(draft, head)
        self._golden = read_golden(draft).answers[head.name]

    def report(self, progress: Callable[[float], None]) -> dict[str, Any]:
        """Return the head's part of ``parity.json``."""
        head, images = self._head, len(self._pixels)
        alone = [self._score(self._bank, self._pixels[n : n + 1]) for n in range(images)]
        progress(0.4)
        logits = np.concatenate([scores for scores, _ in alone])
        maps = np.concatenate([grid for _, grid in alone]) if alone[0][1] is not None else None
        score_error, map_error = self._golden.errors(logits, maps)
        return {
            "head": head.name,
            "findings": len(self._bank),
            "decisions": images * len(self._bank),
            "score_tolerance": head.score_tolerance,
            "map_tolerance": head.map.tolerance if head.map else None,
            "against_original": {
                "against": "original (torch fp32, one image at a time)",
                "score_error": score_error,
                "score_error_mean": float(np.abs(logits - self._golden.logits).mean()),
                "map_error": map_error if head.map else None,
            },
            "noise": self._noise(logits, progress),
        }

    def _score(self, bank: PromptBank, pixels: Any, run: _Run | None = None) -> tuple[Any, Any]:
        return (run or self._runs.one_thread).score(self._head, bank, pixels)

    def _noise(self, logits: Any, progress: Callable[[float], None]) -> list[dict[str, Any]]:
        """Vary what must not matter, one thing at a time, on the first images; largest difference of each."""
        bank, few, count = self._bank, self._pixels[:4], len(self._pixels[:4])
        one = few[:1]
        found: list[dict[str, Any]] = []

        def measure(varied: str, scores: Any, expected: Any) -> None:
            found.append({"varied": varied, "score_error": float(np.abs(scores - expected).max())})
            progress(0.4 + 0.12 * len(found))

        measure(f"batch of {count} images instead of 1", self._score(bank, few)[0], logits[:count])
        backwards = PromptBank(bank.rule, reversed(bank.entries))
        measure("order of the prompts", self._score(backwards, one)[0][:, ::-1], logits[:1])
        if self._head.set == "free":  # the findings of a fixed set are never alone
            singles = [PromptBank(bank.rule, [entry]) for entry in bank.entries[:: max(1, len(bank) // 8)]]
            positions = [bank.keys.index(single.keys[0]) for single in singles]
            alone = np.concatenate([self._score(single, one)[0] for single in singles], axis=1)
            measure("a prompt alone instead of with the others", alone, logits[:1, positions])
        measure("2 threads instead of 1", self._score(bank, one, self._runs.two_threads)[0], logits[:1])
        fixed = self._score(bank, one, self._runs.fixed_shapes)[0]
        measure("reproducible mode's fixed shapes", fixed, logits[:1])
        return found
