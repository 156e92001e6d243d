"""JSON Schema of a structure, the same from every Python."""

from __future__ import annotations

import inspect
from typing import Any

import msgspec


def schema_of(structure: type[msgspec.Struct]) -> dict[str, Any]:
    """Return the JSON Schema of a structure; docstrings are its descriptions, without their indentation.

    Python 3.13 takes the indentation of docstrings away and earlier ones leave it.
    """
    document: dict[str, Any] = _without_indentation(msgspec.json.schema(structure))
    return document


def _without_indentation(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_indentation(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: inspect.cleandoc(item)
        if key == "description" and isinstance(item, str)
        else _without_indentation(item)
        for key, item in value.items()
    }
