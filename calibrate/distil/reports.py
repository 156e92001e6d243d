"""What the reports of the images teach: their own vectors, and the findings they state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from promptray.calibrate.distil.images import DistilImages
from promptray.calibrate.distil.settings import LossWeights
from promptray.calibrate.distil.teacher import Findings
from promptray.calibrate.distil.torch_side import torch_bank
from promptray.calibrate.reports.lexicon import lexicon
from promptray.calibrate.reports.triplets import extract, summarise
from promptray.export.families.base import LoadedModel
from promptray.runtime.errors import BuildError
from promptray.runtime.prompts import ROWS
from promptray.runtime.text import TextEncoder


@dataclass(frozen=True, eq=False)
class Supervision:
    """What is known of the images beside the teacher's answers.

    Attributes
    ----------
    head : str or None
        Scores reports.
    reports : dict of str to Tensor, (n, ...)
        Bank tensors of each image's report.
    tags : Tensor, (n, T)
        1 where the report says that a finding is present.
    known : dict of str to Tensor, (n, K)
        Of heads whose logits are log-odds: 1, 0 or NaN for each finding.
    """

    head: str | None
    reports: dict[str, Tensor]
    tags: Tensor
    known: dict[str, Tensor]


def supervision(
    model: LoadedModel, findings: Findings, images: DistilImages, weights: LossWeights
) -> Supervision:
    """Encode reports, and read findings out of them, as far as the losses ask.

    Raises
    ------
    BuildError
        ``distil.images`` where a loss has no reports or labels; ``distil.settings`` where no head can be
        taught so.
    """
    head, reports, tags = None, {}, torch.zeros(len(images), 0)
    if weights.report:
        head = _report_head(model, findings)
        texts = _texts(images, "report")
        reports, tags = _encoded(model, head, texts), _present(texts)
    known = _known(model, findings, images) if weights.tag else {}
    return Supervision(head, reports, tags, known)


def _report_head(model: LoadedModel, findings: Findings) -> str:
    named = None if model.text is None else model.text.rule.head
    head = None if named is None or named not in findings else model.head(named)
    if named is None or head is None or head.set != "free" or any(ROWS in each.dims for each in head.bank):
        raise BuildError(
            "distil.settings",
            "no head of this model scores reports by a vector of each",
            artefact="distil.losses.report",
            expected="a head of free wordings without rows, as ASG's prompts or a dual encoder has",
            found=f"family {model.family}",
            cure="leave losses.report out",
        )
    return named


def _texts(images: DistilImages, loss: str) -> Sequence[str]:
    if images.reports is None:
        raise BuildError(
            "distil.images",
            f"the loss {loss!r} needs what was said of each image",
            artefact=f"distil.losses.{loss}",
            expected="reports" if loss == "report" else "reports or labels",
            found="none",
            cure="give reports with the images, or leave the loss out",
        )
    return images.reports


def _encoded(model: LoadedModel, head: str, texts: Sequence[str]) -> dict[str, Tensor]:
    if model.text is None:
        raise TypeError("a head of wordings has a text side")
    encoder = TextEncoder(model.text.rule, model.text.tokenizer)
    bank = torch_bank(model, model.head(head), [encoder.encode_finding([text], []) for text in texts])
    names = [each.name for each in model.head(head).bank]
    return {name: torch.from_numpy(np.stack([entry.tensors[name] for entry in bank])) for name in names}


def _present(texts: Sequence[str]) -> Tensor:
    """Return the findings of each report; absent, unsaid and uncertain are all 0, as ASG has it."""
    keys = sorted(lexicon().findings)
    said = [summarise(extract(text)) for text in texts]
    return torch.tensor([[float(each.get(key) == "present") for key in keys] for each in said])


def _known(model: LoadedModel, findings: Findings, images: DistilImages) -> dict[str, Tensor]:
    said = None if images.reports is None else [summarise(extract(text)) for text in images.reports]
    found = {}
    for name, chosen in findings.items():
        if model.head(name).activation != "sigmoid":
            continue
        columns = np.full((len(images), len(chosen)), np.nan, np.float32)
        for number, key in enumerate(chosen):
            if key in images.labels:
                columns[:, number] = images.labels[key]
            elif said is not None and key in lexicon().findings:
                columns[:, number] = [each.get(key) == "present" for each in said]
        if not np.isnan(columns).all():
            found[name] = torch.from_numpy(columns)
    if not found and not images.labels:
        _texts(images, "tag")
    if not found:
        raise BuildError(
            "distil.settings",
            "nothing is known of any finding whose logit is a log-odds",
            artefact="distil.losses.tag",
            expected="findings of a head with a sigmoid, whose keys the labels or the lexicon have",
            found=", ".join(f"{name}: {model.head(name).activation}" for name in findings),
            cure="leave losses.tag out, or give labels by the findings' keys",
        )
    return found
