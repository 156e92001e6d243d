"""Which model a gate judged, as a bundle or a draft of one tells it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Literal

import msgspec

from promptray.runtime.bundle.manifest import Graph, Manifest

#: What a gate is about: the scores of a head, or those of findings that the changed text graph encoded.
Of = Literal["scores", "added prompts"]


def candidate_sha256(manifest: Manifest, consumer: str, of: Of, digest: Callable[[str], str]) -> str:
    """Return one hash of all in a bundle that the scores of a gated model depend on.

    The gates' report holds it, so that a report cannot stand beside other graphs than it judged.

    Parameters
    ----------
    manifest : Manifest
    consumer : str
        The back-end and class of machines.
    of : {"scores", "added prompts"}
    digest : callable
        From the name of a file to its SHA-256.

    Returns
    -------
    str
        SHA-256 of compact JSON with sorted keys (docs/bundle-format.md, section 7.2).
    """
    facts = {
        "consumer": consumer,
        "of": of,
        "graphs": {graph.title: digest(graph.file) for graph in _used(manifest, consumer, of)},
        "banks": {head.name: digest(head.bank.file) for head in manifest.heads},
        "preprocessing": manifest.preprocessing,
        "tokenizer": digest(manifest.text.tokenizer) if manifest.text and of == "added prompts" else None,
    }
    return hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()


def _used(manifest: Manifest, consumer: str, of: Of) -> list[Graph]:
    """Return the graphs that run: of each role the one for the class of machines, else for its back-end."""
    consumers = (consumer, consumer.partition("@")[0])
    roles: list[tuple[str, str | None]] = [("image", None), *(("head", head.name) for head in manifest.heads)]
    if of == "added prompts":
        roles.append(("text", None))
    found = (manifest.graph_for(role, consumers, head) for role, head in roles)
    return [graph for graph in found if graph is not None]
