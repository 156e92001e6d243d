"""The recipe of a bundle: a YAML file, validated so that an error names file, line and key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import yaml
from msgspec import Meta

from promptray.runtime.bundle.manifest import Code, Door, Key, ModelFacts, Text
from promptray.runtime.errors import BuildError

_LIMIT_BYTES = 4 * 2**20
_PATH = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the recipe's structures: unknown keys are refused."""


class FindingRecipe(_Struct, frozen=True, kw_only=True):
    """One finding to score."""

    key: Key
    prompt: Text
    display: Text | None = None
    code: Code | None = None
    allow_empty: bool = False
    """Accept a prompt of which the family's cleaning leaves nothing (all of those score alike)."""


class GoldenRecipe(_Struct, frozen=True, kw_only=True):
    """Golden inputs of your own instead of the ones PromptRay ships."""

    images: Text
    """Folder of at least 16 PNG or JPEG files that you may distribute."""
    licence: Text
    """Licence and attribution of those images."""


class Recipe(_Struct, frozen=True, kw_only=True):
    """What ``promptray build`` reads. Paths are relative to the recipe's folder."""

    recipe_version: Literal[1]
    name: Annotated[str, Meta(min_length=1, max_length=100)]
    family: Text
    checkpoint: Text
    text_model: Text | None = None
    model_options: dict[str, Any] = {}
    model: ModelFacts
    door: Door
    findings: Annotated[list[FindingRecipe], Meta(min_length=1)]
    golden: GoldenRecipe | None = None
    text_graph: bool = True
    """False leaves the text graph out: smaller, but prompts can then only be imported."""


def read_recipe(path: Path) -> Recipe:
    """Read and validate a recipe.

    Parameters
    ----------
    path : Path
        YAML file (safe subset: no tags, no Python objects), at most 4 MiB.

    Raises
    ------
    BuildError
        ``recipe.invalid``, naming file, line and key.
    """
    try:
        if path.stat().st_size > _LIMIT_BYTES:
            raise _invalid(path, None, "the file is too large", expected=f"at most {_LIMIT_BYTES >> 20} MiB")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise _invalid(path, None, f"the recipe cannot be read ({type(error).__name__})") from error
    try:
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, RecursionError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", None)
        problem = getattr(error, "problem", None) or type(error).__name__
        raise _invalid(path, None if line is None else line + 1, f"not valid YAML: {problem}") from error
    if not isinstance(tree, yaml.MappingNode):
        raise _invalid(path, 1, "the recipe must be a mapping of keys to values")
    _refuse_repetition(path, tree)
    try:
        content = yaml.SafeLoader(text).construct_document(tree)
        recipe: Recipe = msgspec.convert(content, Recipe)
    except msgspec.ValidationError as error:
        raise _from_validation(path, tree, str(error)) from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise _invalid(path, None, f"not valid YAML: {str(error).splitlines()[0]}") from error
    keys = [finding.key for finding in recipe.findings]
    for number, key in enumerate(keys):
        if key in keys[:number]:
            line = _line(tree, ["findings", number, "key"])
            raise _invalid(
                path, line, "two findings have the same key", key=f"findings[{number}].key", found=key
            )
    return recipe


def _refuse_repetition(path: Path, node: yaml.Node) -> None:
    """Refuse a key written twice, and aliases (which can blow up a small file without end)."""
    seen: set[int] = set()
    waiting = [node]
    while waiting:
        current = waiting.pop()
        if id(current) in seen:
            raise _invalid(path, current.start_mark.line + 1, "YAML aliases are not allowed in a recipe")
        seen.add(id(current))
        if isinstance(current, yaml.MappingNode):
            keys = set()
            for key, value in current.value:
                if key.value in keys:
                    raise _invalid(
                        path, key.start_mark.line + 1, "a key is written twice", key=str(key.value)
                    )
                keys.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
                waiting.append(value)
        elif isinstance(current, yaml.SequenceNode):
            waiting.extend(current.value)


def _from_validation(path: Path, tree: yaml.Node, message: str) -> BuildError:
    """Turn msgspec's ``message - at `$.findings[0].key``` into file, line and key."""
    what, _, where = message.partition(" - at `$")
    steps: list[str | int] = [
        name or (0 if index == "..." else int(index)) for name, index in _PATH.findall(where.rstrip("`"))
    ]
    unknown = re.search(r"unknown field `([^`]+)`", what)
    if unknown:
        steps.append(unknown[1])
    key = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")
    missing = re.search(r"missing required field `([^`]+)`", what)
    if missing:
        key = f"{key}.{missing[1]}".lstrip(".")
    return _invalid(path, _line(tree, steps), what, key=key)


def _line(tree: yaml.Node, steps: list[str | int]) -> int:
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


def _invalid(
    path: Path, line: int | None, what: str, *, key: str | None = None, expected: str | None = None,
    found: str | None = None,
) -> BuildError:  # fmt: skip
    place = path.name + (f", line {line}" if line is not None else "") + (f", key {key}" if key else "")
    return BuildError(
        "recipe.invalid", what, artefact=place, expected=expected, found=found,
        cure="docs/recipe.md lists every key with an example",
    )  # fmt: skip
