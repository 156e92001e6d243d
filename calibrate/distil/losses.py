"""How far a student is from its teacher, in numbers that mean the same for every family.

==========  ==========================================================================================
feature     mean squared error of the tower's features over their variance: the share not explained
similarity  squared difference of the batch's similarity matrices, rows of unit length; after Tung and
            Mori, ICCV 2019, arXiv 1907.09682, of centred vectors, per image instead of per pair
logit       mean squared difference of logits, through the teacher's own head, in squared spreads of the
            finding; after Hinton et al., arXiv 1503.02531, for logits of any scale
report      ASG's soft labels (Li et al., MICCAI 2024, arXiv 2403.09294): images against the reports of
            the batch; truth is 0.8 identity + 0.2 cosine of the reports' findings
tag         binary cross-entropy with what is known of the findings
==========  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

#: Of ASG's truth: the share of an image's own report, and what keeps a logarithm finite.
OWN_REPORT, LEAST = 0.8, 1e-6


@dataclass(frozen=True, eq=False)
class Scale:
    """What of the teacher's answers the losses are measured by; from the images that are learned from.

    Attributes
    ----------
    means : sequence of Tensor, (W,) or (P, W)
        Of each of the tower's tensors, over images.
    variances : sequence of float
        Mean of the variances about these.
    spreads : mapping of str to Tensor, (K,)
        Standard deviation of each finding's logits, by head.
    """

    means: Sequence[Tensor]
    variances: Sequence[float]
    spreads: Mapping[str, Tensor]

    def to(self, device: str) -> Scale:
        """Return it on a device."""
        spreads = {name: each.to(device) for name, each in self.spreads.items()}
        return Scale([each.to(device) for each in self.means], self.variances, spreads)


def feature_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], scale: Scale) -> Tensor:
    """Return the share of the features' variance that the student does not explain, mean of the tensors."""
    shares = [
        F.mse_loss(ours, theirs) / variance
        for ours, theirs, variance in zip(student, teacher, scale.variances, strict=True)
    ]
    return torch.stack(shares).mean()


def similarity_loss(student: Sequence[Tensor], teacher: Sequence[Tensor], scale: Scale) -> Tensor:
    """Return how differently student and teacher find the batch's images alike, mean of the tensors."""
    found = [
        (_similarities(ours, mean) - _similarities(theirs, mean)).square().sum() / len(ours)
        for ours, theirs, mean in zip(student, teacher, scale.means, strict=True)
    ]
    return torch.stack(found).mean()


def _similarities(features: Tensor, mean: Tensor) -> Tensor:
    vectors = features - mean
    if vectors.ndim == 3:
        vectors = vectors.mean(dim=1)
    return F.normalize(vectors @ vectors.T, dim=1)


def logit_loss(student: Mapping[str, Tensor], teacher: Mapping[str, Tensor], scale: Scale) -> Tensor:
    """Return the mean squared difference in spreads, mean of the heads."""
    return torch.stack(
        [((student[name] - teacher[name]) / scale.spreads[name]).square().mean() for name in student]
    ).mean()


def report_loss(scores: Tensor, tags: Tensor) -> Tensor:
    """Return ASG's loss of the scores (B, B) of a batch's images against its reports.

    Parameters
    ----------
    scores : Tensor, (B, B)
        Image by report.
    tags : Tensor, (B, T)
        1 where a report says that a finding is present, 0 otherwise.

    Notes
    -----
    Mean over both directions of (KL(truth, softmax) + KL(softmax, truth)) / 2; the rows of the truth add up
    to 1.
    """
    unit = F.normalize(tags, dim=1)
    truth = OWN_REPORT * torch.eye(len(tags), device=tags.device) + (1 - OWN_REPORT) * unit @ unit.T + LEAST
    truth = (truth / truth.sum(dim=1, keepdim=True)).log()
    ways = []
    for each in (scores, scores.T):
        found = each.log_softmax(dim=1)
        for first, second in ((truth, found), (found, truth)):
            ways.append(F.kl_div(second, first, reduction="batchmean", log_target=True))
    return torch.stack(ways).sum() / 4


def tag_loss(logits: Tensor, known: Tensor) -> Tensor:
    """Return the mean cross-entropy of logits (B, K) with 1, 0, or NaN where nothing is known."""
    there = ~known.isnan()
    each = F.binary_cross_entropy_with_logits(logits, known.nan_to_num(), reduction="none")
    return (each * there).sum() / there.sum().clamp(min=1)
