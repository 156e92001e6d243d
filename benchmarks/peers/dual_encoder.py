"""A dual encoder: a bundle against open_clip, and against what runs an exported open_clip model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks.peers import dual_encoder_peers as peers
from benchmarks.peers.contest import Contestant, NotRun, best_peer, contest
from benchmarks.peers.open_clip_model import CustomTextCLIP, ImageScores, open_clip_model, token_ids
from benchmarks.peers.own import contestant, first_picture, opened, score_exactly, wordings
from benchmarks.peers.result import Comparison, Row, Target

#: Of the lower 95 % bound of the best peer's time over PromptRay's; and what is aimed at.
_WANTED, _AIM = 0.97, 1.2
#: Texts in every call take seconds, far from any bound.
_ROUNDS_WITH_TEXTS = 5
ENCODED = "Dual encoder, texts encoded before"


def compare(
    recipe: Path, bundle: Path, prompts: Sequence[int], *, rounds: int, threads: int
) -> Iterator[Comparison]:
    """Compare for each number of prompts; scores are of one image.

    Raises
    ------
    AssertionError
        Where a contestant has other scores than PromptRay.
    """
    torch.set_num_threads(threads)
    model, pixels = open_clip_model(recipe), first_picture(bundle)
    with opened(bundle, threads) as (scorers, absent):
        (head,) = scorers[0].bundle.manifest.heads
        for count in sorted(prompts):
            for scorer in scorers:
                score_exactly(scorer, count)
            own = [contestant(scorer, pixels) for scorer in scorers]
            ids = token_ids(bundle, wordings(count))
            found, not_run = _peers(model, ids, pixels, recipe.parent / "peers", threads)
            tolerance = head.score_tolerance
            yield contest(
                ENCODED, [*own, *found], [*absent, *not_run], rounds=rounds, score_tolerance=tolerance
            )
            yield contest(
                "Dual encoder, texts in every call",
                [*own, peers.with_texts(model, ids, pixels)],
                absent,
                rounds=min(rounds, _ROUNDS_WITH_TEXTS),
                score_tolerance=tolerance,
            )


def targets(comparisons: Sequence[Comparison]) -> list[Target]:
    """Return the design's target, for every number of prompts."""
    found = []
    for comparison in comparisons:
        if comparison.title == ENCODED:
            best = best_peer(comparison)
            assert best.ratio is not None
            found.append(
                Target(
                    what=f"Dual encoder, {comparison.prompts} prompts: time of the best peer, "
                    f"{best.contestant}, over PromptRay's",
                    wanted=f"lower 95 % bound >= {_WANTED}, aim {_AIM}",
                    found=str(best.ratio),
                    met=best.ratio.low >= _WANTED,
                )
            )
    return found


def _peers(
    model: CustomTextCLIP, ids: torch.Tensor, pixels: peers.Pixels, folder: Path, threads: int
) -> tuple[list[Contestant], list[Row]]:
    """Make everyone ready; return those that are, and rows of the others."""
    with torch.inference_mode():
        texts = model.encode_text(ids, normalize=True)
    module = ImageScores(model, texts.clone()).eval()
    path = peers.export(module, folder)
    ready: dict[str, Callable[[], Contestant]] = {
        "open_clip, eager": partial(peers.eager, module, pixels),
        "open_clip, torch.compile": partial(peers.compiled, module, pixels),
        "ONNX Runtime, defaults": partial(peers.onnxruntime_defaults, path, pixels, threads),
        "OpenVINO, fp32": partial(peers.openvino_defaults, path, pixels, threads, fp32=True),
        "OpenVINO, defaults": partial(peers.openvino_defaults, path, pixels, threads, fp32=False),
        "Optimum": partial(peers.optimum, path, pixels, threads),
    }
    found, not_run = [], []
    for name, make in ready.items():
        try:
            found.append(make())
        except NotRun as reason:
            not_run.append(Row(contestant=name, kind="peer", not_run=str(reason)))
    return found, not_run
