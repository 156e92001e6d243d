"""Head, medium and tail: the findings split by how many images show them, as CARZero's tables do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

Part = Literal["head", "medium", "tail"]

TAIL_POSITIVES = 10
HEAD_PERCENTILE = 65.0


def split_by_frequency(
    positives: Mapping[str, int],
    *,
    tail_positives: int = TAIL_POSITIVES,
    head_percentile: float = HEAD_PERCENTILE,
) -> dict[str, Part]:
    """Name the part of each finding.

    Tail: at most `tail_positives` images show it (PadChest20 is the tail of PadChest 192). Head: it is no
    tail, and more images show it than the `head_percentile`-th percentile of all findings' counts
    (NumPy's linear interpolation). Medium: the rest. Lai et al., CVPR 2024, with their evaluation code.

    Parameters
    ----------
    positives : mapping of str to int
        Images that show each finding.

    Returns
    -------
    dict of str to {"head", "medium", "tail"}
    """
    if not positives:
        return {}
    border = float(np.percentile(list(positives.values()), head_percentile))
    return {
        key: "tail" if count <= tail_positives else "head" if count > border else "medium"
        for key, count in positives.items()
    }
