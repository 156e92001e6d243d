"""Fit a published state dict into a module: every missing, unexpected or misshapen key is named."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from promptray.runtime.errors import BuildError

#: As `optional` or `ignored` of :func:`fit_state_dict`: no key.
NO_KEY = r"(?!)"
_LISTED = 8
_CURE = "check that the recipe names the right family (`promptray families` describes each layout)"


def fit_state_dict(
    module: nn.Module,
    state: Mapping[str, Tensor],
    *,
    artefact: str,
    optional: str,
    ignored: str,
    cure: str = _CURE,
) -> None:
    """Load `state` into `module`, strictly.

    Parameters
    ----------
    module : nn.Module
        Its ``state_dict`` keys are the layout.
    state : mapping of str to Tensor
        The published tensors, prefix removed.
    artefact : str
        Name of the file, for errors.
    optional : str
        Regular expression of keys that take no part in scoring and may be missing.
    ignored : str
        Regular expression of keys that may be present and are left out.
    cure : str
        What the refusal says to do.

    Raises
    ------
    BuildError
        ``checkpoint.layout``, listing the keys, with the nearest name that is there.
    """
    expected = module.state_dict()
    given = {key: tensor for key, tensor in state.items() if not re.search(ignored, key)}
    missing = [key for key in expected if key not in given and not re.search(optional, key)]
    unexpected = [key for key in given if key not in expected]
    misshapen = [key for key in expected if key in given and given[key].shape != expected[key].shape]
    problems = [_missing(key, unexpected) for key in missing]
    problems += [f"unexpected {key}" for key in unexpected]
    problems += [
        f"shape of {key}: expected {tuple(expected[key].shape)}, found {tuple(given[key].shape)}"
        for key in misshapen
    ]
    fitting = [key for key in expected if key in given and key not in misshapen]
    problems += [
        f"type of {key}: expected {expected[key].dtype}, found {given[key].dtype}"
        for key in fitting
        if given[key].is_floating_point() != expected[key].is_floating_point()
    ]
    problems += [f"not finite: {key}" for key in fitting if not bool(torch.isfinite(given[key]).all())]
    if problems:
        shown = "; ".join(problems[:_LISTED])
        more = f"; and {len(problems) - _LISTED} more" if len(problems) > _LISTED else ""
        raise BuildError(
            "checkpoint.layout",
            f"the weights do not fit the layout: {shown}{more}",
            artefact=artefact,
            expected=f"{len(expected)} tensors",
            found=f"{len(given)} tensors, {len(missing)} missing, {len(unexpected)} unexpected",
            cure=cure,
        )
    module.load_state_dict({key: given[key] for key in expected if key in given}, strict=False)


def _missing(key: str, candidates: list[str]) -> str:
    near = difflib.get_close_matches(key, candidates, n=1, cutoff=0.6)
    return f"missing {key}" + (f" (nearest there: {near[0]})" if near else "")


def check_tied(state: Mapping[str, Tensor], one: str, other: str, artefact: str) -> None:
    """Refuse (``checkpoint.layout``) two values for what the published file holds under two names.

    Parameters
    ----------
    one, other : str
        Two names of one module: what stands below both must be equal.
    """
    for key, tensor in state.items():
        twin = state.get(f"{other}{key.removeprefix(one)}") if key.startswith(f"{one}.") else None
        if twin is not None and not torch.equal(tensor, twin):
            raise BuildError(
                "checkpoint.layout",
                "the checkpoint holds two different values for one tensor",
                artefact=artefact,
                expected=f"{key} equal to {other}{key.removeprefix(one)}",
                cure="get the file again from its publisher and compare its sha256",
            )
