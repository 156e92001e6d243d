"""The names of TensorRT's Python API that code uses, read off its source.

A chain with ``trt`` is a name of the module. An attribute of what is called as in `OBJECTS` (``config.x``,
``self._config.x``) is one of that class, unless it is an argument annotated as a class of our own. What
``_own.value`` holds is an engine or a context: its attributes are names of either.
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


#: Written for an attribute of an engine or a context.
EITHER = "trt.ICudaEngine|IExecutionContext"


def used_names(source: str) -> set[str]:
    """Return dotted names, each beginning with ``trt``."""
    found: set[str] = set()
    _collect(ast.parse(source), frozenset(), found)
    return found


def _collect(node: ast.AST, ours: frozenset[str], found: set[str]) -> None:
    """Walk a tree; `ours` are the arguments that are of classes of our own."""
    if isinstance(node, ast.FunctionDef):
        stated = [(each.arg, each.annotation) for each in (*node.args.args, *node.args.kwonlyargs)]
        ours |= {name for name, kind in stated if kind is not None and ast.unparse(kind) != "Any"}
    if isinstance(node, ast.Attribute):
        parts: list[str] = []
        at: ast.expr = node
        while isinstance(at, ast.Attribute):
            parts.insert(0, at.attr)
            at = at.value
        if isinstance(at, ast.Name):
            parts.insert(0, at.id)
            found.update(_names(parts, ours))
            return
    for child in ast.iter_child_nodes(node):
        _collect(child, ours, found)


def _names(parts: list[str], ours: frozenset[str]) -> Iterator[str]:
    if "trt" in parts[:-1]:
        yield ".".join(parts[parts.index("trt") :])
    elif parts[-3:-1] == ["_own", "value"]:
        yield f"{EITHER}.{parts[-1]}"
    elif len(parts) > 1 and parts[0] not in ours:
        owner = parts[-2] if parts[0] != "self" or parts[-2].startswith("_") else ""
        if (kind := OBJECTS.get(owner.lstrip("_"))) is not None:
            yield f"trt.{kind}.{parts[-1]}"
    elif parts[-2:-1] == ["runtime"]:
        yield f"trt.Runtime.{parts[-1]}"


def unknown(used: set[str], names: Mapping[str, list[str]]) -> set[str]:
    """Return the used names that a version does not have (see `bindings_names`)."""
    return {name for name in used if not _exists(name.split("."), names)}


def _exists(parts: list[str], names: Mapping[str, list[str]]) -> bool:
    if "|" in parts[1]:
        return any(_exists(["trt", kind, *parts[2:]], names) for kind in parts[1].split("|"))
    path = parts[0]
    for part in parts[1:]:
        if path not in names:  # beyond what has names of its own: the value of an enumeration, say
            return True
        if part not in names[path]:
            return False
        path = f"{path}.{part}"
    return True
