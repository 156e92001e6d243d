"""The fp32 gate: exported graphs give the original's numbers, whatever the shapes of the call."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable
from typing import Any

import numpy as np

from promptray.runtime.backends import load_backend
from promptray.runtime.errors import BuildError
from promptray.runtime.golden import GoldenSet, read_golden
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
    golden = read_golden(draft)
    bank = own_bank(draft)
    pixels = normalise(golden.pictures, manifest.preprocessing)
    scores_bound, maps_bound = manifest.golden.score_tolerance, manifest.golden.map_tolerance

    baseline = _Run(draft, backend, threads=1)
    alone = [baseline.score(bank, pixels[n : n + 1]) for n in range(len(pixels))]
    progress(0.4)
    logits = np.concatenate([scores for scores, _ in alone])
    maps = np.concatenate([grid for _, grid in alone]) if alone[0][1] is not None else None
    original = _difference("original (torch fp32, one image at a time)", logits, maps, golden)
    noise = _noise(draft, baseline, bank, pixels, logits, progress)
    report = {
        "format": "promptray-parity",
        "format_version": 1,
        "graphs": "fp32",
        "backend": f"{backend} {baseline.backend.version}",
        "machine": f"{platform.system()} {platform.machine()}",
        "images": len(pixels),
        "findings": len(bank),
        "decisions": len(pixels) * len(bank),
        "score_tolerance": scores_bound,
        "map_tolerance": maps_bound,
        "against_original": original,
        "noise": noise,
    }
    # "Not within" rather than "beyond": NaN is neither, and must fail.
    failed = [] if original["score_error"] <= scores_bound else [original["against"]]
    failed += [] if original["map_error"] <= maps_bound else [f"{original['against']}: maps"]
    failed += [item["varied"] for item in noise if not item["score_error"] <= scores_bound]
    if failed:
        worst = np.max([original["score_error"], *(item["score_error"] for item in noise)])
        raise BuildError(
            "gate.failed",
            f"the exported graphs disagree: {', '.join(failed)}",
            artefact=f"{manifest.name}, {report['backend']}",
            expected=f"scores within {scores_bound:g}, maps within {maps_bound:g}",
            found=f"scores off by {worst:.3g}, maps by {original['map_error']:.3g}",
            cure="compare the installed versions with constraints.txt; no bundle was written",
        )
    return report


class _Run:
    """Graphs on one backend setting."""

    def __init__(
        self, draft: BundleContent, backend: str, *, threads: int, prompts_per_batch: int | None = None
    ) -> None:
        self.backend = load_backend(backend, threads=threads)
        self.graphs = Graphs(draft, self.backend, prompts_per_batch=prompts_per_batch)

    def score(self, bank: PromptBank, pixels: Any) -> tuple[Any, Any]:
        return self.graphs.bind(bank).run(self.graphs.features(pixels))


def _difference(against: str, logits: Any, maps: Any, golden: GoldenSet) -> dict[str, Any]:
    if maps is None or golden.maps is None:
        map_error = 0.0 if maps is golden.maps else math.inf
    else:
        map_error = float(np.abs(maps - golden.maps).max())
    return {
        "against": against,
        "score_error": float(np.abs(logits - golden.logits).max()),
        "score_error_mean": float(np.abs(logits - golden.logits).mean()),
        "map_error": map_error,
    }


def _noise(
    draft: BundleContent,
    baseline: _Run,
    bank: PromptBank,
    pixels: Any,
    logits: Any,
    progress: Callable[[float], None],
) -> list[dict[str, Any]]:
    """Vary what must not matter, one thing at a time, on the first images; largest difference of each."""
    few, count = pixels[:4], len(pixels[:4])
    backwards = PromptBank(bank.rule, reversed(bank.entries))
    singles = [PromptBank(bank.rule, [entry]) for entry in bank.entries[:: max(1, len(bank) // 8)]]
    positions = [bank.keys.index(single.keys[0]) for single in singles]
    found: list[dict[str, Any]] = []

    def measure(varied: str, scores: Any, expected: Any) -> None:
        found.append({"varied": varied, "score_error": float(np.abs(scores - expected).max())})
        progress(0.4 + 0.12 * len(found))

    measure(f"batch of {count} images instead of 1", baseline.score(bank, few)[0], logits[:count])
    measure("order of the prompts", baseline.score(backwards, few[:1])[0][:, ::-1], logits[:1])
    if draft.manifest.head.bank == "free":  # the findings of a fixed set are never alone
        alone = np.concatenate([baseline.score(single, few[:1])[0] for single in singles], axis=1)
        measure("a prompt alone instead of with the others", alone, logits[:1, positions])
    measure(
        "2 threads instead of 1",
        _Run(draft, baseline.backend.name, threads=2).score(bank, few[:1])[0],
        logits[:1],
    )
    fixed = _Run(draft, baseline.backend.name, threads=1, prompts_per_batch=REPRODUCIBLE_PROMPTS)
    measure("reproducible mode's fixed shapes", fixed.score(bank, few[:1])[0], logits[:1])
    return found
