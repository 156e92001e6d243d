"""The prompt bank: everything the head needs from a prompt, computed once and cached.

A bank is an immutable value. Adding or removing a prompt makes a new bank that shares the arrays of the old
one, so a scorer swaps banks in one assignment and no call ever sees a half-changed set.

Which tensors a prompt has is declared by its head (``bank.tensors``), not known here: a dual encoder has
one vector, CARZero has keys and values of four layers. A dimension named ``prompts`` is stacked; one named
``rows`` differs from prompt to prompt, and is padded to the next bucket, so that one 95-word prompt inflates
its own bucket and not the 192 short ones beside it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from promptray.runtime.bundle.manifest import BankRule, Code, TensorFacts
from promptray.runtime.errors import BundleError, PromptError
from promptray.runtime.limits import check_bank_tensor
from promptray.runtime.wording import Wording

Array = NDArray[Any]
PROMPTS, ROWS = "prompts", "rows"


@dataclass(frozen=True, eq=False)
class BankEntry:
    """One finding's prompt, or ensemble of prompts, with its cached tensors.

    Attributes
    ----------
    key : str
        The finding's key.
    prompts : tuple of Wording
        Its wordings, as given and as encoded; none for the class of a classifier.
    tensors : dict of str to array
        As ``bank.tensors`` declares them, without the ``prompts`` dimension.
    negative_prompts : tuple of Wording
        The wordings it is asked against; empty but in a head of pairs.
    display : str or None
        Name for people of a prompt that travels without a manifest (exports, site entries).
    code : Code or None
        Its coded concept, likewise.
    """

    key: str
    prompts: tuple[Wording, ...]
    tensors: Mapping[str, Array]
    negative_prompts: tuple[Wording, ...] = ()
    display: str | None = None
    code: Code | None = None

    @property
    def wordings(self) -> tuple[Wording, ...]:
        """All wordings, the negative ones last."""
        return (*self.prompts, *self.negative_prompts)

    @property
    def texts(self) -> tuple[list[str], list[str]]:
        """Wordings as given: the finding's own, and the negative ones."""
        return [each.text for each in self.prompts], [each.text for each in self.negative_prompts]

    @cached_property
    def fingerprint(self) -> str:
        """Sha256 of all that a score of it depends on: key, wordings and tensors, bit by bit."""
        digest = hashlib.sha256()
        named = [(name, self.tensors[name]) for name in sorted(self.tensors)]
        layout = [[name, str(tensor.dtype), list(tensor.shape)] for name, tensor in named]
        digest.update(msgspec.json.encode([self.key, *self.texts, layout]))
        for _, tensor in named:
            digest.update(np.ascontiguousarray(tensor).data)
        return digest.hexdigest()

    def facts(self) -> dict[str, Any]:
        """Return all but the tensors, as stored in the bank's metadata."""
        return {
            "key": self.key,
            "prompts": msgspec.to_builtins(self.prompts),
            "negative_prompts": msgspec.to_builtins(self.negative_prompts),
            "display": self.display,
            "code": None if self.code is None else msgspec.to_builtins(self.code),
        }


@dataclass(frozen=True, eq=False)
class BankBatch:
    """Prompts of one row bucket, stacked and padded as the head graph takes them.

    Attributes
    ----------
    positions : int array, (n,)
        Place of each prompt in the bank. Prompts beyond n are padding and never reach the caller.
    tensors : dict of str to array
        Head graph inputs.
    """

    positions: NDArray[np.intp]
    tensors: dict[str, Array]

    @property
    def size(self) -> int:
        """Prompts of the batch, padding included."""
        return len(next(iter(self.tensors.values())))


class PromptBank:
    """Immutable, ordered set of prompts with their cached tensors.

    Parameters
    ----------
    rule : BankRule
        Layout, identity and padding rule of the bundle.
    entries : iterable of BankEntry
        In score order; keys are unique.
    known : PromptBank, optional
        A bank whose entries have been checked; those are not looked at again.

    Raises
    ------
    PromptError
        ``prompt.exists`` when two entries share a key.
    BundleError
        ``bundle.foreign-bank`` when a tensor does not fit the layout.
    """

    def __init__(
        self, rule: BankRule, entries: Iterable[BankEntry] = (), *, known: PromptBank | None = None
    ) -> None:
        self.rule = rule
        self.entries = tuple(entries)
        checked = set() if known is None or known.rule != rule else {id(entry) for entry in known.entries}
        keys: set[str] = set()
        for entry in self.entries:
            if entry.key in keys:
                raise PromptError(
                    "prompt.exists",
                    "a finding with this key exists already",
                    artefact=entry.key,
                    cure="remove it first, or choose another key",
                )
            keys.add(entry.key)
            if id(entry) not in checked:
                _require_fit(entry, rule)

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[BankEntry]:
        return iter(self.entries)

    @cached_property
    def keys(self) -> tuple[str, ...]:
        """Keys in score order."""
        return tuple(entry.key for entry in self.entries)

    def with_entry(self, entry: BankEntry) -> PromptBank:
        """Return a bank with one more prompt, at the end."""
        return PromptBank(self.rule, (*self.entries, entry), known=self)

    def without(self, key: str) -> PromptBank:
        """Return a bank without one prompt.

        Raises
        ------
        PromptError
            ``prompt.unknown``.
        """
        if key not in self.keys:
            raise PromptError(
                "prompt.unknown",
                "no finding has this key",
                artefact=key,
                expected=f"one of {', '.join(self.keys)}",
            )
        return PromptBank(self.rule, (entry for entry in self.entries if entry.key != key), known=self)

    def batches(self, *, prompts_per_batch: int | None = None) -> list[BankBatch]:
        """Group the prompts by row bucket and pad them.

        Parameters
        ----------
        prompts_per_batch : int, optional
            Cut every group into batches of exactly this many prompts, the last one padded: fixed shapes, so
            that a prompt's score does not depend on how many others there are. By default one batch for
            each bucket, of just its prompts.

        Returns
        -------
        list of BankBatch
            Every prompt appears once.
        """
        groups: dict[int, list[int]] = {}
        for position, entry in enumerate(self.entries):
            groups.setdefault(self._bucket(entry), []).append(position)
        batches = []
        for bucket, positions in sorted(groups.items()):
            size = prompts_per_batch or len(positions)
            for start in range(0, len(positions), size):
                chosen = positions[start : start + size]
                tensors = {
                    facts.name: self._stack(facts, chosen, size, bucket) for facts in self.rule.tensors
                }
                batches.append(BankBatch(np.array(chosen, np.intp), tensors))
        return batches

    def _bucket(self, entry: BankEntry) -> int:
        rows = rows_of(entry, self.rule)
        for bucket in self.rule.row_buckets:
            if rows <= bucket:
                return bucket
        if rows:
            raise BundleError(
                "bundle.foreign-bank",
                "a prompt has more rows than the largest bucket",
                artefact=entry.key,
                expected=f"at most {max(self.rule.row_buckets, default=0)} rows",
                found=str(rows),
            )
        return 0

    def _stack(self, facts: TensorFacts, chosen: Sequence[int], size: int, rows: int) -> Array:
        shape = [size if dim == PROMPTS else rows if dim == ROWS else int(dim) for dim in facts.dims]
        check_bank_tensor(facts.name, math.prod(shape) * np.dtype(facts.dtype).itemsize)
        fill = self.rule.row_bias_padding if facts.name == self.rule.row_bias else 0.0
        stacked = np.full(shape, fill, facts.dtype)
        if facts.name == self.rule.row_bias:
            # A padding prompt has no rows at all; an all-masked softmax would be NaN.
            np.moveaxis(stacked, facts.dims.index(PROMPTS), 0)[len(chosen) :] = 0.0
        by_prompt = np.moveaxis(stacked, facts.dims.index(PROMPTS), 0)
        for slot, position in enumerate(chosen):
            tensor = self.entries[position].tensors[facts.name]
            place: tuple[int | slice, ...] = (slot, *(slice(0, n) for n in tensor.shape))
            by_prompt[place] = tensor
        return stacked


def rows_of(entry: BankEntry, rule: BankRule) -> int:
    """Return the rows of a prompt: the same in all its tensors, as the bank made sure."""
    for facts in rule.tensors:
        if ROWS in facts.dims:
            return int(entry.tensors[facts.name].shape[own_dims(facts).index(ROWS)])
    return 0


def own_dims(facts: TensorFacts) -> list[int | str]:
    """Return the dimensions of one prompt's tensor."""
    return [dim for dim in facts.dims if dim != PROMPTS]


def _require_fit(entry: BankEntry, rule: BankRule) -> None:
    rows: int | None = None
    for facts in rule.tensors:
        expected, tensor = own_dims(facts), entry.tensors.get(facts.name)
        fits = tensor is not None and tensor.dtype == facts.dtype and tensor.ndim == len(expected)
        if fits and tensor is not None:
            for dim, size in zip(expected, tensor.shape, strict=True):
                fits = fits and (0 < size == (size if rows is None else rows) if dim == ROWS else size == dim)
                rows = size if dim == ROWS else rows
            fits = fits and bool(np.isfinite(tensor).all())
        if not fits:
            raise BundleError(
                "bundle.foreign-bank",
                "a cached prompt does not fit the bank's layout",
                artefact=f"{entry.key}: {facts.name}",
                expected=f"finite {facts.dtype} {expected}" + (f" with {rows} rows" if rows else ""),
                found="nothing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}",
                cure="build the bundle again, or add the prompt again at this site",
            )
