"""ASG's own arithmetic, plainly: reports padded to 112 tokens, batch norms apart, one image at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from promptray.export.families.base import Reference
from promptray.export.models.asg import REPORT_TOKENS, ImageEncoder, ReportEncoder
from promptray.export.models.query_decoder import QueryDecoder
from promptray.runtime.text import EncodedFinding, EncodedPrompt


def score_prompts(
    image: ImageEncoder,
    report: ReportEncoder,
    scale: float,
    pixels: Tensor,
    findings: Sequence[EncodedFinding],
    done: Callable[[int], None] = lambda _: None,
) -> Reference:
    """Score `pixels` against prompts (see `promptray.export.families.base.Scoring`)."""
    with torch.inference_mode():
        own = [_finding_vectors(report, finding.prompts) for finding in findings]
        sentences, words = (torch.stack(vectors) for vectors in zip(*own, strict=True))
        if any(finding.negative_prompts for finding in findings):
            against = [_finding_vectors(report, finding.negative_prompts) for finding in findings]
            negatives, negative_words = (torch.stack(vectors) for vectors in zip(*against, strict=True))
            sentences, words = sentences - negatives, words - negative_words
        logits, maps = [], []
        for number, one in enumerate(pixels, start=1):
            vector, patches = image.features(one[None])
            logits.append(image.global_embed(vector) @ sentences.T / scale)
            likeness = image.local_embed(patches) @ words.T
            maps.append(likeness.transpose(1, 2).unflatten(-1, image.grid))
            done(number)
    return Reference(logits=torch.cat(logits).numpy(), maps=torch.cat(maps).numpy())


def _finding_vectors(report: ReportEncoder, prompts: Sequence[EncodedPrompt]) -> tuple[Tensor, Tensor]:
    """Return the unit vectors of a finding's sentence and words: the mean over its wordings."""
    sentences, words = [], []
    for prompt in prompts:
        ids, mask = (torch.zeros((1, REPORT_TOKENS), dtype=torch.int64) for _ in range(2))
        tokens = torch.from_numpy(prompt.arrays["input_ids"])
        ids[:, : tokens.shape[1]], mask[:, : tokens.shape[1]] = tokens, 1
        states = report(ids, mask)
        sentences.append(report.global_embed(states[:, 0]))
        summed = torch.from_numpy(prompt.arrays["word_matrix"]) @ states[:, : tokens.shape[1]]
        words.append(F.normalize(report.local_embed(summed[:, 1:-1]).sum(dim=1), dim=-1))
    sentence, word = (F.normalize(torch.cat(vectors).mean(dim=0), dim=-1) for vectors in (sentences, words))
    return sentence, word


def score_tags(
    image: ImageEncoder,
    decoder: QueryDecoder,
    queries: Tensor,
    tags: Sequence[str],
    pixels: Tensor,
    findings: Sequence[EncodedFinding],
    done: Callable[[int], None] = lambda _: None,
) -> Reference:
    """Score all tags in their published order, then take the findings' columns."""
    columns = [tags.index(str(finding.class_name)) for finding in findings]
    logits, maps = [], []
    with torch.inference_mode():
        for number, one in enumerate(pixels, start=1):
            outputs, attention = decoder(image.features(one[None])[1], queries)
            logits.append(outputs[:, columns, 0])
            maps.append(attention[:, columns].unflatten(-1, image.grid))
            done(number)
    return Reference(logits=torch.cat(logits).numpy(), maps=torch.cat(maps).numpy())
