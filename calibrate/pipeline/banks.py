"""Prompt banks of a draft in other terms: stored in less, or taking prompts from a changed text graph."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

import msgspec

from promptray.export.draft import Draft
from promptray.runtime.bank_file import pack
from promptray.runtime.bank_precision import rounded
from promptray.runtime.bundle.manifest import BankRule, Head, bank_id
from promptray.runtime.errors import BuildError, PromptError
from promptray.runtime.graphs import own_bank
from promptray.runtime.prompts import BankEntry, PromptBank


def with_float16_banks(made: Draft) -> Draft:
    """Store the banks of all heads as float16; what is added later is rounded alike.

    Raises
    ------
    BuildError
        ``quantise.bank`` for a number that float16 cannot hold.
    """
    for head in made.manifest.heads:
        made = _with_bank(made, head, {"stored": "float16"}, stored="float16")
    return made


def with_added_by(made: Draft) -> Draft:
    """Name the changed text graph in the identity of its bank.

    The shipped entries stay those of the fp32 text graph, which the identity holds; prompts added on the spot
    come from this one. So the bank takes what these two made, and no other bank takes what was added here.
    """
    head, graph = made.manifest.text_head, made.manifest.graph("text")
    assert head is not None  # noqa: S101 - a text graph was changed
    assert graph is not None  # noqa: S101 - likewise
    added_by = hashlib.sha256(made.read(graph.file)).hexdigest()
    return _with_bank(made, head, {"added_by": added_by, "added_precision": graph.precision})


def _with_bank(made: Draft, head: Head, named: Mapping[str, str], **changes: str) -> Draft:
    """Write a head's bank again under another rule, with more in its identity."""
    identity = {**head.bank.identity, **named}
    rule = msgspec.structs.replace(head.bank, identity=identity, id=bank_id(identity), **changes)
    try:
        entries = [_fitted(entry, rule) for entry in own_bank(made, head)]
    except PromptError as error:
        raise BuildError(
            "quantise.bank",
            f"the bank of {head.name} cannot be stored in {rule.stored}",
            artefact=error.artefact,
            expected=error.expected,
            found=error.found,
            cure="leave the key `bank` out of the section `quantise`",
        ) from error
    heads = [
        msgspec.structs.replace(each, bank=rule) if each.name == head.name else each
        for each in made.manifest.heads
    ]
    manifest = msgspec.structs.replace(made.manifest, heads=heads)
    return Draft(manifest, {**made.files, rule.file: pack(PromptBank(rule, entries))})


def _fitted(entry: BankEntry, rule: BankRule) -> BankEntry:
    return replace(entry, tensors=rounded(entry.tensors, rule, entry.key))
