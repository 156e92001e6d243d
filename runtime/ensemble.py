"""From the encoded wordings of one finding to its one entry in the bank.

The rules are named in the bundle (``bank.ensemble``). ``none`` takes a single wording as it is. ``mean-unit``
is open_clip's zero-shot classifier: each wording's unit vector, their mean, unit length again. Where a
finding is asked against its negative, the entry is the difference of the two vectors, so that one product
with the image's vector gives the log-odds of the pair.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.bundle.manifest import BankRule
from promptray.runtime.wording import invalid_wordings

Rows = Mapping[str, NDArray[Any]]
#: Below this length a mean of unit vectors has no direction worth a score: its wordings contradict.
_LEAST_LENGTH = 1e-3


def combine(
    rule: BankRule, key: str, prompts: Sequence[Rows], negative_prompts: Sequence[Rows]
) -> dict[str, NDArray[Any]]:
    """Return the bank entry of one finding.

    Parameters
    ----------
    rule : BankRule
        Names the ensemble and the tensors.
    key : str
        The finding, for errors.
    prompts, negative_prompts : sequence of mapping
        Outputs of the text graph for each wording.

    Returns
    -------
    dict of str to array
        As ``bank.tensors`` declares them, without the ``prompts`` dimension.

    Raises
    ------
    PromptError
        ``prompt.invalid`` when the wordings cancel each other, or their negative is the same to the model.
    """
    if rule.ensemble == "none":
        return dict(prompts[0])
    entry = {}
    for facts in rule.tensors:
        vector = _mean_unit([rows[facts.name] for rows in prompts], key)
        if negative_prompts:
            vector = vector - _mean_unit([rows[facts.name] for rows in negative_prompts], key)
            if not float(np.linalg.norm(vector)) > _LEAST_LENGTH:
                raise invalid_wordings(
                    key,
                    "the model cannot tell the prompt from its negative",
                    "different wordings",
                    "one vector",
                )
        entry[facts.name] = vector.astype(facts.dtype)
    return entry


def _mean_unit(vectors: Sequence[NDArray[Any]], key: str) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = np.mean(np.stack(vectors).astype(np.float64), axis=0)
    length = float(np.linalg.norm(mean))
    if not length > _LEAST_LENGTH:
        if len(vectors) == 1:
            raise invalid_wordings(key, "the model makes no vector of the prompt", "words", "none")
        raise invalid_wordings(
            key, "the wordings cancel each other", "wordings that mean the same", "opposite vectors"
        )
    return mean / length
