"""The type that a bank's numbers are stored in. float16 halves the file; the head takes what it declares."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.bundle.manifest import BankRule, TensorFacts
from promptray.runtime.errors import PromptError

Array = NDArray[Any]


def stored_dtype(facts: TensorFacts, rule: BankRule) -> str:
    """Return the type of a bank tensor in its file; the row bias, which is added to logits, stays."""
    lessened = rule.stored == "float16" and facts.dtype == "float32" and facts.name != rule.row_bias
    return "float16" if lessened else facts.dtype


def rounded(tensors: Mapping[str, Array], rule: BankRule, key: str) -> dict[str, Array]:
    """Return a finding's tensors as the file will give them back, so that it scores the same before.

    Raises
    ------
    PromptError
        ``prompt.invalid`` for a number that the stored type cannot hold.
    """
    made = dict(tensors)
    for facts in rule.tensors:
        stored = stored_dtype(facts, rule)
        if stored == facts.dtype:
            continue
        with np.errstate(over="ignore"):
            made[facts.name] = made[facts.name].astype(stored).astype(facts.dtype)
        if not np.isfinite(made[facts.name]).all():
            greatest = float(np.abs(tensors[facts.name]).max())
            raise PromptError(
                "prompt.invalid",
                f"the prompt's encoding does not fit into the {stored} numbers of this bundle's bank",
                artefact=f"{key}: {facts.name}",
                expected=f"magnitudes of at most {np.finfo(stored).max:g}",
                found=f"{greatest:.3g}",
                cure="word it otherwise, or take a bundle that stores its bank in float32",
            )
    return made
