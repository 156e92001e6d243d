"""The YAML of a recipe: plain values only, and the line of each of them."""

from __future__ import annotations

import re
import stat
from pathlib import Path
from typing import Any

import yaml

from promptray.runtime.errors import BuildError

_LIMIT_BYTES = 2**20
_LIMIT_DEPTH = 20
_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq")}
_PATH = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


def read_tree(path: Path) -> tuple[yaml.MappingNode, Any]:
    """Read a recipe's YAML.

    Returns
    -------
    tree : yaml.MappingNode
        Where everything stands (see :func:`line_of`).
    content : mapping
        The same as plain values.

    Raises
    ------
    BuildError
        ``recipe.invalid``, naming file and line.
    """
    text = _read(path)
    try:
        _refuse_bombs(path, text)
        tree = _compose(path, text)
        _refuse_surprises(path, tree)
        content = _Loader(text).construct_document(tree)
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or type(error).__name__
        raise invalid(path, mark.line + 1 if mark else None, f"not valid YAML: {problem}") from error
    return tree, content


class _Loader(yaml.SafeLoader):
    """Plain values only; 2026-01-31 is text here, not a date."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _read(path: Path) -> str:
    try:
        facts = path.stat()
        if not (stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode)):  # a pipe would hang
            raise invalid(path, None, "the recipe is no ordinary file")
        if facts.st_size > _LIMIT_BYTES:
            raise invalid(path, None, "the file is too large", expected=f"at most {_LIMIT_BYTES >> 20} MiB")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise invalid(path, None, f"the recipe cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise invalid(path, None, "the recipe is not UTF-8 text") from error


def _compose(path: Path, text: str) -> yaml.MappingNode:
    tree = yaml.compose(text, Loader=_Loader)
    if not isinstance(tree, yaml.MappingNode):
        raise invalid(path, 1, "the recipe must be a mapping of keys to values")
    return tree


def _refuse_bombs(path: Path, text: str) -> None:
    """Refuse what can blow up a small file without end, before anything is built of it."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else None
        if isinstance(event, yaml.AliasEvent):
            raise invalid(path, line, "YAML aliases are not allowed in a recipe")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _LIMIT_DEPTH:
            raise invalid(
                path, line, "the recipe is nested too deep", expected=f"at most {_LIMIT_DEPTH} levels"
            )


def _retagged(node: yaml.Node, resolver: _Loader) -> bool:
    """Tell whether a tag makes of a text what it would not be without."""
    if not isinstance(node, yaml.ScalarNode):
        return False
    plain = node.style is None
    return bool(resolver.resolve(yaml.ScalarNode, node.value, (plain, not plain)) != node.tag)


def _refuse_surprises(path: Path, tree: yaml.Node) -> None:
    """Refuse a key written twice, one that is not text, half a character, and every tag of no plain value."""
    resolver = _Loader("")
    waiting: list[tuple[yaml.Node, str]] = [(tree, "")]
    while waiting:
        node, place = waiting.pop()
        line = node.start_mark.line + 1
        if node.tag not in _TAGS or _retagged(node, resolver):
            raise invalid(path, line, "YAML tags are not allowed in a recipe", key=place, found=node.tag)
        if isinstance(node, yaml.ScalarNode):
            _refuse_surrogate(path, line, node.value, place)
        if isinstance(node, yaml.SequenceNode):
            waiting.extend((item, f"{place}[{number}]") for number, item in enumerate(node.value))
        if not isinstance(node, yaml.MappingNode):
            continue
        seen = set()
        for key, value in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode):
                _refuse_surrogate(path, line, key.value, place)
            name = f"{place}.{key.value}".lstrip(".") if isinstance(key, yaml.ScalarNode) else place
            if key.tag != "tag:yaml.org,2002:str":
                raise invalid(path, line, "a key must be text; put it in quotes", key=name)
            if key.value in seen:
                raise invalid(path, line, "a key is written twice", key=name)
            seen.add(key.value)
            waiting.append((value, name))


def _refuse_surrogate(path: Path, line: int, text: str, place: str) -> None:
    r"""An escape such as ``"\ud800"`` is half of a character: no file can hold it."""
    half = re.search("[\ud800-\udfff]", text)
    if half:
        raise invalid(
            path,
            line,
            "the text holds half of a character (a lone surrogate)",
            key=place,
            expected="the character itself, or its escape of eight digits",
            found=f"U+{ord(half[0]):04X}",
        )


def steps_of(place: str) -> list[str | int]:
    """Take ``.findings[0].key`` apart."""
    return [name or (0 if index == "..." else int(index)) for name, index in _PATH.findall(place)]


def key_of(steps: list[str | int]) -> str:
    """Put it together again."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")


def line_of(tree: yaml.Node, steps: list[str | int]) -> int:
    """Return the line of a key, counted from 1, or of the nearest one around it that is there."""
    node, line = tree, tree.start_mark.line
    for step in steps:
        if isinstance(node, yaml.MappingNode):
            found = next(((key, value) for key, value in node.value if key.value == step), None)
            if found is None:
                break
            line, node = found[0].start_mark.line, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
            node = node.value[step]
            line = node.start_mark.line
        else:
            break
    return line + 1


def invalid(
    path: Path, line: int | None, what: str, *, key: str | None = None, expected: str | None = None,
    found: str | None = None,
) -> BuildError:  # fmt: skip
    """Return the refusal of a recipe, with its file, line and key."""
    place = path.name + (f", line {line}" if line is not None else "") + (f", key {key}" if key else "")
    return BuildError(
        "recipe.invalid", what, artefact=place, expected=expected, found=found,
        cure="docs/recipe.md lists every key with an example",
    )  # fmt: skip
