"""What the gates ask for, by kind of change.

The gates hold these bounds when a model is built; a reader holds the report in a bundle against them again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["fp16", "int8", "student"]
#: The kinds, the strictest first.
KINDS: tuple[Kind, ...] = ("fp16", "int8", "student")
#: The bounds that a number must reach; below all others it must stay.
AT_LEAST = ("spearman", "map_correlation", "map_overlap")
#: Of the intervals: each end alone is a one-sided limit of 95 %, because a bound asks about one side.
CONFIDENCE = 0.9


@dataclass(frozen=True)
class Limits:
    """Bounds of the gates; None asks for nothing, and the number is measured all the same.

    Differences of logits are in spreads: the standard deviation of the original's logits of that finding
    over the images. Families score on scales of their own, and an absolute bound would fit only one.

    Attributes
    ----------
    auroc_loss, class_auroc_loss : float
        Largest loss of the mean AUROC, and of the finding that loses most.
    flips, finding_flips : float
        Largest share of decisions that change sides of the threshold, over all findings, and of the worst.
    spearman : float
        Least rank correlation of any finding.
    mean_delta, max_delta : float
        Largest mean, and largest single, absolute difference of a finding's logits, in spreads.
    batch_delta : float
        Largest difference of the candidate's logits between shapes of call, in spreads.
    map_correlation, map_overlap : float
        Least agreement of heat maps of any finding (``docs/gates.md``).
    """

    auroc_loss: float | None = None
    class_auroc_loss: float | None = None
    flips: float | None = None
    finding_flips: float | None = None
    spearman: float | None = None
    mean_delta: float | None = None
    max_delta: float | None = None
    batch_delta: float | None = None
    map_correlation: float | None = None
    map_overlap: float | None = None


#: Bounds by kind of change. The AUROC losses and the flips are the product's promises. The others are set
#: about as wide as noise that keeps those promises: noise of s spreads correlates with the original by
#: 1 / sqrt(1 + s**2), moves logits by 0.8 s on average, and flips 0.14 s of the decisions at an operating
#: point that one image in ten reaches. So s = 0.07 flips 1 %, at a rank correlation of 0.995.
LIMITS: dict[Kind, Limits] = {
    "fp16": Limits(
        auroc_loss=0.002,
        class_auroc_loss=0.002,
        flips=0.01,
        finding_flips=0.01,
        spearman=0.999,
        mean_delta=0.03,
        max_delta=0.25,
        batch_delta=0.01,
        map_correlation=0.99,
        map_overlap=0.9,
    ),
    "int8": Limits(
        auroc_loss=0.005,
        class_auroc_loss=0.005,
        flips=0.01,
        finding_flips=0.01,
        spearman=0.995,
        mean_delta=0.1,
        max_delta=0.75,
        batch_delta=0.01,
        map_correlation=0.95,
        map_overlap=0.8,
    ),
    "student": Limits(
        auroc_loss=0.01,
        class_auroc_loss=0.01,
        flips=0.01,
        finding_flips=0.01,
        spearman=0.99,
        mean_delta=0.15,
        max_delta=1.0,
        batch_delta=0.01,
        map_correlation=0.8,
        map_overlap=0.6,
    ),
}
