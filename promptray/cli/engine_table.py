"""Sets of engines as rows of a table and as JSON: the same in ``engine`` and in ``inspect``."""

from __future__ import annotations

from typing import Any

import msgspec

from promptray.runtime.engines.facts import Device, EngineSet, EngineSpeed
from promptray.runtime.engines.here import here
from promptray.runtime.engines.store import EngineStore
from promptray.runtime.errors import PromptRayError

COLUMNS = ["key", "backend", "precision", "device", "gate", "one image", "size", "usable here"]


def engine_documents(store: EngineStore) -> list[dict[str, Any]]:
    """Return every set: its facts with its key, its gate in a word, and why it cannot be used here, if so."""
    machine = {backend: here(backend) for backend in {each.backend for each in store.sets}}
    return [
        {
            "key": each.key,
            "gate_title": each.gate.title,
            "unusable": _unusable(store, each, machine[each.backend]),
            **msgspec.to_builtins(each),
        }
        for each in store.sets
    ]


def engine_rows(documents: list[dict[str, Any]]) -> list[list[str]]:
    """Return a row for each document."""
    return [
        [
            each["key"],
            f"{each['backend']} {each['version']}",
            each["precision"],
            f"{each['device']['name']} ({each['device']['compute_capability']})",
            each["gate_title"]
            + (", prepares images" if each["gate"]["prepare"] else "")
            + ("" if each["cuda_graphs"] else ", without CUDA graphs"),
            time_words(msgspec.convert(each["speed"], EngineSpeed | None)),
            f"{each['bytes'] / 1e6:.1f} MB" if each["bytes"] else "compiled when opened",
            each["unusable"] or "yes",
        ]
        for each in documents
    ]


def _unusable(
    store: EngineStore, facts: EngineSet, machine: tuple[str, Device] | PromptRayError
) -> str | None:
    """Say why a set cannot be used on this machine; None where it can."""
    if isinstance(machine, PromptRayError):
        return f"no: {machine.message}"
    differing = store.differing(facts, *machine)
    return f"no: another {', '.join(differing)}" if differing else None


def time_words(speed: EngineSpeed | None) -> str:
    """Say what a call takes, and of what it is a share."""
    if speed is None:
        return "not measured"
    compared = speed.beside is not None and speed.ratio is not None
    return f"{speed.milliseconds:.2f} ms" + (f", {speed.ratio:.2f} of {speed.beside}" if compared else "")
