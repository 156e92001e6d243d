"""A prompt bank as bytes: a bundle's ``banks/<head>.safetensors``, an export, an entry of a site directory.

Section 5 of ``docs/bundle-format.md`` is the format.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from promptray.runtime.bank_precision import stored_dtype
from promptray.runtime.bundle.manifest import BankRule, Code, TensorFacts
from promptray.runtime.errors import BundleError
from promptray.runtime.prompts import ROWS, BankEntry, PromptBank, own_dims, rows_of
from promptray.runtime.wording import Wording

Array = NDArray[Any]
_OFFSETS = "offsets"


class _EntryFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the file says of one finding."""

    key: str
    prompts: list[Wording]
    negative_prompts: list[Wording]
    display: str | None
    code: Code | None


def pack(bank: PromptBank) -> bytes:
    """Return a bank as the bytes of its file.

    Fixed tensors are stacked over prompts. Tensors with rows are packed: the ``rows`` axis comes first and
    the prompts' rows follow one another; ``offsets`` (int64, N + 1) says where each prompt begins.
    The same bank gives the same bytes. Where the rule stores float16, entries hold numbers that it can
    (`promptray.runtime.bank_precision.rounded`).
    """
    tensors: dict[str, Array] = {}
    counts = [rows_of(entry, bank.rule) for entry in bank]
    tensors[_OFFSETS] = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    for facts in bank.rule.tensors:
        dims = own_dims(facts)
        parts = [entry.tensors[facts.name] for entry in bank]
        if ROWS in dims:
            axis = dims.index(ROWS)
            fixed = [int(dim) for dim in dims if dim != ROWS]
            moved = [np.moveaxis(part, axis, 0) for part in parts]
            joined = np.concatenate(moved) if moved else np.empty((0, *fixed), facts.dtype)
        else:
            joined = np.stack(parts) if parts else np.empty((0, *map(int, dims)), facts.dtype)
        tensors[facts.name] = np.ascontiguousarray(joined, stored_dtype(facts, bank.rule))
    prompts = json.dumps([entry.facts() for entry in bank])
    metadata = {"bank_id": bank.rule.id, "prompts": prompts}
    metadata["sha256"] = _content_sha256(bank.rule.id, prompts, tensors)
    return _in_one_order(safetensors.numpy.save(tensors, metadata))


def _in_one_order(data: bytes) -> bytes:
    """Write the header again with its metadata sorted: the library orders it anew in every process."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the tensors begin at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def _content_sha256(bank_id: str, prompts: str, tensors: Mapping[str, Array]) -> str:
    """Hash what a bank says: exports travel alone, without a manifest that holds their hash."""
    digest = hashlib.sha256(f"{bank_id}\n{prompts}\n".encode())
    for name in sorted(tensors):
        tensor = np.ascontiguousarray(tensors[name])
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode() + tensor.tobytes())
    return digest.hexdigest()


def unpack(data: bytes, rule: BankRule, *, artefact: str) -> PromptBank:
    """Read the bytes of a bank, refusing one that was made for another model.

    Parameters
    ----------
    data : bytes
        Content of a bundle's bank or of a site's prompt entry.
    rule : BankRule
        The bundle's bank rule; its ``id`` is what the bank must carry.
    artefact : str
        Name of the file, for errors.

    Raises
    ------
    BundleError
        ``bundle.foreign-bank`` when the bank's identity or layout is another; ``bundle.format`` when the
        bytes are no such file.
    """
    try:
        metadata = _metadata(data)
        tensors = safetensors.numpy.load(data)
        facts_list = msgspec.json.decode(metadata["prompts"], type=list[_EntryFacts])
        found_id = metadata["bank_id"]
        offsets = tensors[_OFFSETS]
        if metadata["sha256"] != _content_sha256(found_id, metadata["prompts"], tensors):
            raise ValueError("content hash")
        if found_id == rule.id:
            _require_offsets(offsets, len(facts_list), tensors, rule)
            tensors |= {facts.name: _widened(tensors[facts.name], facts, rule) for facts in rule.tensors}
            return PromptBank(
                rule, [_entry(facts, n, tensors, offsets, rule) for n, facts in enumerate(facts_list)]
            )
    except (
        safetensors.SafetensorError,
        msgspec.MsgspecError,
        KeyError,
        ValueError,
        TypeError,
        IndexError,
        RecursionError,
    ) as error:
        raise BundleError(
            "bundle.format",
            f"not a whole prompt bank ({type(error).__name__})",
            artefact=artefact,
            expected="safetensors as docs/bundle-format.md describes, with the hash of its own content",
            cure="copy the file again from where it was written, or write it again",
        ) from error
    raise BundleError(
        "bundle.foreign-bank",
        "the prompts were encoded with other weights, tokenizer, cleaning, template, layout or precision",
        artefact=artefact,
        expected=f"bank id {rule.id[:12]}",
        found=f"bank id {str(found_id)[:12]}",
        cure="encode the prompts again with this bundle: `promptray prompts BUNDLE add KEY`",
    )


def _metadata(data: bytes) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    return dict(header["__metadata__"])


def _require_offsets(offsets: Array, prompts: int, tensors: Mapping[str, Array], rule: BankRule) -> None:
    """Raise ValueError unless the prompts' rows fill the packed tensors without gap or overlap."""
    lengths = {len(tensors[facts.name]) for facts in rule.tensors if ROWS in facts.dims} or {0}
    whole = offsets.dtype == np.int64 and offsets.shape == (prompts + 1,) and offsets[0] == 0
    if not (whole and (np.diff(offsets) >= 0).all() and lengths == {int(offsets[-1])}):
        raise ValueError("offsets")
    if any(len(tensors[facts.name]) != prompts for facts in rule.tensors if ROWS not in facts.dims):
        raise ValueError("prompts")


def _widened(tensor: Array, facts: TensorFacts, rule: BankRule) -> Array:
    """Return a tensor as the head takes it; what is not widened is looked at by the layout later."""
    stored = stored_dtype(facts, rule)
    if stored == facts.dtype:
        return tensor
    if tensor.dtype != stored:
        raise ValueError(f"{facts.name}: {tensor.dtype}")
    return tensor.astype(facts.dtype)


def _entry(
    facts: _EntryFacts, n: int, tensors: Mapping[str, Array], offsets: Array, rule: BankRule
) -> BankEntry:
    own: dict[str, Array] = {}
    for tensor in rule.tensors:
        dims = own_dims(tensor)
        stored = tensors[tensor.name]
        if ROWS in dims:
            rows = stored[int(offsets[n]) : int(offsets[n + 1])]
            own[tensor.name] = np.moveaxis(rows, 0, dims.index(ROWS))
        else:
            own[tensor.name] = stored[n]
    return BankEntry(
        facts.key,
        tuple(facts.prompts),
        own,
        negative_prompts=tuple(facts.negative_prompts),
        display=facts.display,
        code=facts.code,
    )
