"""Read a checkpoint in the safetensors format: tensors and a few texts, and nothing that could be run.

Format: https://github.com/huggingface/safetensors, section "Format".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from promptray.runtime.errors import BuildError

#: Key of the file's own texts (str to str) beside the tensors; the format keeps it from being a tensor's.
METADATA = "__metadata__"


def is_safetensors(path: Path) -> bool:
    """Tell whether a file begins as the format demands: eight bytes of length, then a brace."""
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def read_safetensors(path: Path) -> dict[str, Any]:
    """Return the tensors, mapped from the file, and its texts under :data:`METADATA`.

    Raises
    ------
    BuildError
        ``checkpoint.format`` for a file that is damaged, or holds numbers that torch has no type for.
    """
    try:
        with safe_open(path, framework="pt") as file:
            # safe_open is no mapping: its keys are a method only.
            content: dict[str, Any] = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            content[METADATA] = dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise BuildError(
            "checkpoint.format",
            f"not a readable safetensors file ({type(error).__name__})",
            artefact=path.name,
            cure="get the file again from its publisher and compare its sha256",
        ) from error
    return content


def stated_list(content: Mapping[str, Any], name: str, artefact: str) -> list[Any] | None:
    """Return a list that the file's texts hold as JSON, or None where there is no such text.

    Raises
    ------
    BuildError
        ``checkpoint.config`` for a text that is no JSON list.
    """
    texts = content.get(METADATA)
    text = texts.get(name) if isinstance(texts, Mapping) else None
    if text is None:
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError, TypeError):
        found = None
    if not isinstance(found, list):
        raise BuildError(
            "checkpoint.config",
            f"the file's own text {name!r} is not what it must be",
            artefact=artefact,
            expected="a JSON list",
            found=repr(text)[:80],
            cure="save the file again with a JSON list there",
        )
    return found
