"""Prompt packs: the published lists of findings with the exact wordings they were evaluated with.

A pack is a JSON file in ``data/``. Its schema is the classes here; ``docs/packs.md`` says what is in it.
Findings that mean the same have the same key in all packs, so that a report, a label file and a score can be
laid side by side.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from promptray.runtime.bundle.fields import Key, Text
from promptray.runtime.bundle.manifest import Code, Relation
from promptray.runtime.errors import PromptError


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of a pack's structures: unknown fields are refused."""


class PackFinding(_Struct, frozen=True, kw_only=True):
    """One finding of a pack."""

    key: Key
    """Its name in results."""
    label: Text | None
    """The name of the class in the data set's own label files; None where they have none."""
    display: Text
    prompts: Annotated[list[Text], Meta(min_length=1)]
    """The wordings as published: one, or an ensemble."""
    code: Code | None
    """Coded concept; None where we could verify none."""


class Subset(_Struct, frozen=True, kw_only=True):
    """A part of a pack that has a name of its own."""

    title: Text
    keys: Annotated[list[Key], Meta(min_length=1)]


class Pack(_Struct, frozen=True, kw_only=True):
    """A list of findings in the order of its publication's score columns."""

    pack_version: Literal[1]
    name: Text
    title: Text
    source: Text
    licence: Text
    note: Text
    relation: Relation
    """How the findings hang together; a head of another relation cannot score them as published."""
    subsets: dict[str, Subset]
    findings: Annotated[list[PackFinding], Meta(min_length=1)]


def pack_names() -> tuple[str, ...]:
    """Return the names of all packs, each followed by its subsets."""
    return tuple(_owners())


def read_pack(name: str) -> Pack:
    """Return a shipped pack, or the named subset of one.

    Parameters
    ----------
    name : str
        One of :func:`pack_names`.

    Raises
    ------
    PromptError
        ``prompt.unknown-pack``.
    """
    owners = _owners()
    if name not in owners:
        raise PromptError(
            "prompt.unknown-pack",
            "no prompt pack has this name",
            artefact=str(name)[:200],
            expected=f"one of {', '.join(owners)}",
            cure="`promptray packs` lists them",
        )
    pack = owners[name]
    return pack if name == pack.name else _part(pack, name)


def _part(pack: Pack, name: str) -> Pack:
    subset = pack.subsets[name]
    chosen = [finding for finding in pack.findings if finding.key in subset.keys]
    return msgspec.structs.replace(pack, name=name, title=subset.title, subsets={}, findings=chosen)


def _owners() -> dict[str, Pack]:
    """Return every name of a pack or subset, with the pack that holds it."""
    data = files(__package__) / "data"
    owners: dict[str, Pack] = {}
    for file in sorted(data.iterdir(), key=lambda each: each.name):
        pack = msgspec.json.decode(file.read_bytes(), type=Pack)
        owners.update(dict.fromkeys((pack.name, *pack.subsets), pack))
    return owners
