"""Optimisation profiles: the shapes that an engine accepts, and those that it is tuned for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import msgspec

from promptray.runtime.backends.declared import DeclaredTensor
from promptray.runtime.bundle.manifest import Graph, Head, Manifest
from promptray.runtime.engines.settings import Range, Settings
from promptray.runtime.errors import BuildError
from promptray.runtime.prepare_graph import PrepareFacts
from promptray.runtime.prompts import PROMPTS, ROWS, BankBatch, PromptBank

Shape: TypeAlias = tuple[int, ...]
BATCH = "batch"
#: Prompts of one call that an engine accepts where nobody said, if the bundle's own are not more.
MOST_PROMPTS = 256


class Profile(msgspec.Struct, frozen=True):
    """Shapes of every input, all dynamic dimensions together.

    Attributes
    ----------
    shapes : mapping of str to (Shape, Shape, Shape)
        Input -> least, tuned, most.
    """

    shapes: Mapping[str, tuple[Shape, Shape, Shape]]


def profiles_for(
    facts: Graph, manifest: Manifest, settings: Settings, *, own: PromptBank | None = None
) -> list[Profile]:
    """Return the profiles of an image or head graph: one, or one for each row bucket of the head's bank.

    Parameters
    ----------
    facts : Graph
        Its role is ``image`` or ``head``.
    manifest : Manifest
    settings : Settings
    own : PromptBank, optional
        The bundle's own prompts: each bucket is tuned for as many of them as it holds. Without it, every
        bucket is tuned for all findings of the head.

    Raises
    ------
    ValueError
        For another role.
    BuildError
        ``engine.build-failed`` for settings that leave no range, or exclude the bundle's own prompts.
    """
    if facts.role == "image":
        return [_profile(facts.inputs, {BATCH: settings.images})]
    head = manifest.head(facts.head or "")
    if facts.role != "head" or head is None:
        raise ValueError(f"a graph of role {facts.role} has no profiles")
    buckets: list[int | None] = [*head.bank.row_buckets] if _has_rows(facts) else [None]
    profiles = []
    for bucket in buckets:
        sizes = {BATCH: settings.images, PROMPTS: _prompts(head, manifest, settings, bucket, own)}
        if bucket is not None:
            sizes[ROWS] = _only(bucket)
        profiles.append(_profile(facts.inputs, sizes))
    return profiles


def prepare_profile(facts: PrepareFacts, settings: Settings) -> Profile:
    """Return the profile of the graph that prepares images: of 8 and 16 bits, of every size allowed."""
    sides = settings.sides
    sizes = {"rows": sides, "columns": sides, "values": Range(least=1 << 8, tuned=1 << 16, most=1 << 16)}
    return _profile(facts.inputs, sizes)


def _has_rows(facts: Graph) -> bool:
    return any(ROWS in each.dims for each in facts.inputs)


def _prompts(
    head: Head, manifest: Manifest, settings: Settings, bucket: int | None, own: PromptBank | None
) -> Range:
    """Return how many prompts one call of a bucket may have; a fixed set always goes whole."""
    count = len(manifest.findings_of(head.name))
    if head.set == "fixed":
        return _only(count)
    if own is not None:
        batches = own.batches()
        count = sum(each.size for each in batches if bucket is None or bucket == _rows_of(each, head))
    if settings.prompts is not None:
        if count > settings.prompts.most:
            raise _unordered(f"at least {count} prompts, which the bundle has", str(settings.prompts.most))
        return settings.prompts
    return Range(tuned=max(count, 1), most=max(count, MOST_PROMPTS))


def _rows_of(batch: BankBatch, head: Head) -> int:
    facts = next(each for each in head.bank.tensors if ROWS in each.dims)
    return int(batch.tensors[facts.name].shape[facts.dims.index(ROWS)])


def _only(size: int) -> Range:
    return Range(least=size, tuned=size, most=size)


def _profile(inputs: Sequence[DeclaredTensor], sizes: Mapping[str, Range]) -> Profile:
    for name, size in sizes.items():
        if not size.least <= size.tuned <= size.most:
            raise _unordered("least <= tuned <= most", f"{name}: {size.least}, {size.tuned}, {size.most}")
    shapes = {}
    for facts in inputs:
        ranges = [sizes[dim] if isinstance(dim, str) else _only(dim) for dim in facts.dims]
        shapes[facts.name] = (
            tuple(each.least for each in ranges),
            tuple(each.tuned for each in ranges),
            tuple(each.most for each in ranges),
        )
    return Profile(shapes)


def _unordered(expected: str, found: str) -> BuildError:
    return BuildError(
        "engine.build-failed",
        "the range of sizes that an engine is asked for cannot be",
        artefact="settings of the engine",
        expected=expected,
        found=found,
        cure="change images or prompts of the section `tensorrt` of the recipe, and build the bundle again",
    )
