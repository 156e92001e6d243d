"""Read sizes off a published state dict, and fit it into a module: every key that does not fit is named."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from promptray.runtime.errors import BuildError

#: As `optional` or `ignored` of :func:`fit_state_dict`: no key.
NO_KEY = r"(?!)"
_LISTED = 8
_CURE = "check that the recipe names the right family (`promptray families` describes each layout)"
# What making a module raises for sizes that cannot be.
_FAULTS = (LookupError, ValueError, TypeError, ArithmeticError, RuntimeError, AssertionError)


@contextmanager
def described(what: str, artefact: str, *, cure: str = _CURE) -> Iterator[None]:
    """Turn what making a module by the shapes of tensors raises into ``checkpoint.layout``.

    Parameters
    ----------
    what : str
        The model, for the message.
    artefact : str
        Name of the file.
    """
    try:
        yield
    except _FAULTS as error:
        raise BuildError(
            "checkpoint.layout",
            f"the tensors do not describe {what} ({str(error)[:300]})",
            artefact=artefact,
            cure=cure,
        ) from error


def sizes_of(state: Mapping[str, Tensor], key: str, *shape: int | None) -> tuple[int, ...]:
    """Return the sizes of a tensor that are not known yet.

    A family asks for all sizes before it makes a module: what is checked against a vector's length here can
    neither be transposed nor ask for more memory than the file has numbers.

    Parameters
    ----------
    shape : int or None
        What each dimension must be; None for those that are returned.

    Raises
    ------
    ValueError
        Naming the key, for a tensor that is missing, has another shape, or is empty.
    """
    if key not in state:
        raise ValueError(_missing(key, list(state)))
    found = tuple(state[key].shape)
    fits = len(found) == len(shape) and all(
        size == known if known is not None else size > 0 for size, known in zip(found, shape, strict=True)
    )
    if not fits:
        expected = ", ".join("*" if known is None else str(known) for known in shape)
        raise ValueError(f"shape of {key}: expected ({expected}), found {found}")
    return tuple(size for size, known in zip(found, shape, strict=True) if known is None)


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
    problems = [_missing(key, unexpected) for key in missing]
    problems += [f"unexpected {key}" for key in unexpected]
    misfits = (_misfit(key, given[key], expected[key]) for key in expected if key in given)
    problems += [problem for problem in misfits if problem]
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


def _misfit(key: str, found: Tensor, expected: Tensor) -> str | None:
    """Say what is wrong with a tensor in the place of another."""
    if found.shape != expected.shape:
        return f"shape of {key}: expected {tuple(expected.shape)}, found {tuple(found.shape)}"
    if found.is_floating_point() != expected.is_floating_point():
        return f"type of {key}: expected {expected.dtype}, found {found.dtype}"
    return None if bool(torch.isfinite(found).all()) else f"not finite: {key}"


def _missing(key: str, candidates: list[str]) -> str:
    near = difflib.get_close_matches(key, candidates, n=1, cutoff=0.6)
    return f"missing {key}" + (f" (nearest there: {near[0]})" if near else "")


def check_tied(state: Mapping[str, Tensor], one: str, other: str, artefact: str) -> None:
    """Refuse (``checkpoint.layout``) two values for what the published file holds under two names.

    Parameters
    ----------
    one, other : str
        Two names of one module, the first of a tensor that `fit_state_dict` took: what stands below both must
        be equal.
    """
    for key, tensor in state.items():
        name = f"{other}{key.removeprefix(one)}"
        twin = state.get(name) if key.startswith(f"{one}.") else None
        if twin is not None and (problem := _misfit(name, twin, tensor) or _difference(twin, tensor)):
            raise BuildError(
                "checkpoint.layout",
                f"the checkpoint holds two different values for one tensor: {problem}",
                artefact=artefact,
                expected=f"{key} equal to {name}",
                cure="get the file again from its publisher and compare its sha256",
            )


def _difference(found: Tensor, expected: Tensor) -> str | None:
    return None if torch.equal(found, expected) else "they differ"
