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

from promptray.runtime.bundle.manifest import BankRule, Relation
from promptray.runtime.errors import PromptError

Rows = Mapping[str, NDArray[Any]]
#: Below this length a mean of unit vectors has no direction worth a score: its wordings contradict.
_LEAST_LENGTH = 1e-3


def require_wordings(
    ensemble: str, relation: Relation, key: str, prompts: Sequence[str], negative_prompts: Sequence[str]
) -> None:
    """Refuse wordings that a head cannot score.

    Raises
    ------
    PromptError
        ``prompt.invalid``: none, several where the model takes one, a negative one where findings have
        none or none where they need it, or the same on both sides.
    """
    if not prompts:
        raise _invalid(key, "a finding needs a prompt", "at least one wording", "none")
    if ensemble == "none" and len(prompts) + len(negative_prompts) != 1:
        raise _invalid(key, "this model scores one wording for each finding", "one prompt", str(len(prompts)))
    if (relation == "pair") != bool(negative_prompts):
        if relation == "pair":
            raise _invalid(
                key, "this head asks each finding against its negative", "a negative prompt", "none"
            )
        raise _invalid(key, "only a head of pairs takes negative prompts", "none", str(len(negative_prompts)))
    if negative_prompts and set(prompts) == set(negative_prompts):
        raise _invalid(key, "the prompt and its negative are the same", "different wordings", "the same")


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
        ``prompt.invalid`` when the wordings cancel each other.
    """
    if rule.ensemble == "none":
        return dict(prompts[0])
    entry = {}
    for facts in rule.tensors:
        vector = _mean_unit([rows[facts.name] for rows in prompts], key)
        if negative_prompts:
            vector = vector - _mean_unit([rows[facts.name] for rows in negative_prompts], key)
        entry[facts.name] = vector.astype(facts.dtype)
    return entry


def _mean_unit(vectors: Sequence[NDArray[Any]], key: str) -> NDArray[np.float64]:
    mean: NDArray[np.float64] = np.mean(np.stack(vectors).astype(np.float64), axis=0)
    length = float(np.linalg.norm(mean))
    if not length > _LEAST_LENGTH:
        raise _invalid(
            key, "the wordings cancel each other", "wordings that mean the same", "opposite vectors"
        )
    return mean / length


def _invalid(key: str, message: str, expected: str, found: str) -> PromptError:
    return PromptError("prompt.invalid", message, artefact=key, expected=expected, found=found)
