"""The names of TensorRT's Python API that code uses, read off its source.

A chain that begins with ``trt`` is a name of the module. An attribute of a variable called as in `OBJECTS`
(``config.x``, ``self._config.x``) is one of that class.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping

OBJECTS = {
    "builder": "Builder",
    "cache": "ITimingCache",
    "config": "IBuilderConfig",
    "context": "IExecutionContext",
    "engine": "ICudaEngine",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "parser_error": "ParserError",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
    "tensor": "ITensor",
}


def used_names(source: str) -> set[str]:
    """Return dotted names, each beginning with ``trt``."""
    tree = ast.parse(source)
    inside = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    return {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and id(node) not in inside
        for name in _names(node)
    }


def _names(node: ast.Attribute) -> Iterator[str]:
    parts: list[str] = []
    at: ast.expr = node
    while isinstance(at, ast.Attribute):
        parts.insert(0, at.attr)
        at = at.value
    if isinstance(at, ast.Name):
        parts.insert(0, at.id)
    if parts[0] == "self":
        parts.pop(0)
    owner = parts[0].lstrip("_")
    if owner == "trt":
        yield ".".join(["trt", *parts[1:]])
    elif owner in OBJECTS and len(parts) > 1:
        yield f"trt.{OBJECTS[owner]}.{parts[1]}"


def unknown(used: set[str], names: Mapping[str, list[str]]) -> set[str]:
    """Return the used names that a version does not have (see `bindings_names`)."""
    return {name for name in used if not _exists(name.split("."), names)}


def _exists(parts: list[str], names: Mapping[str, list[str]]) -> bool:
    path = parts[0]
    for part in parts[1:]:
        if path not in names:  # beyond what has names of its own: the value of an enumeration, say
            return True
        if part not in names[path]:
            return False
        path = f"{path}.{part}"
    return True
