"""The recipe of a bundle: a YAML file, validated so that an error names file, line and key."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

import msgspec
import yaml
from msgspec import Meta

from promptray.runtime.bundle.manifest import (
    Code,
    Door,
    Examination,
    HeadName,
    Key,
    ModelFacts,
    Relation,
    Text,
)
from promptray.runtime.bundle.words import body_part_words, key_fault
from promptray.runtime.errors import BuildError, PromptError
from promptray.runtime.packs import read_pack

_LIMIT_BYTES = 2**20
_LIMIT_DEPTH = 20
_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "map", "seq")}
_WORDS = {
    "str": "text",
    "int": "a whole number",
    "float": "a decimal number",
    "bool": "true or false",
    "array": "a list",
    "object": "a mapping",
    "null": "nothing",
}  # of msgspec's messages
#: Why a pack that is a scale stands alone in its head.
LONGER_SCALE = "the pack is a scale, and other findings would make it a longer one"
_PATH = re.compile(r"\.([^.\[\]]+)|\[(\d+|\.\.\.)\]")


Wordings = Text | Annotated[list[Text], Meta(min_length=1)]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the recipe's structures: unknown keys are refused."""


class FindingRecipe(_Struct, frozen=True, kw_only=True):
    """One finding to score."""

    key: Key
    head: HeadName | None = None
    """Which head scores it; by default the model's first."""
    prompt: Wordings | None = None
    """One wording or, where the family averages them, several; the templates filled with the key if left
    out."""
    negative_prompt: Wordings | None = None
    """What it is asked against, where the relation is ``pair``."""
    class_name: Text | None = None
    """What a classifier's weights call it; by default the key."""
    display: Text | None = None
    code: Code | None = None
    allow_empty: bool = False
    """Accept a prompt of which the family's cleaning leaves nothing (all of those score alike)."""


class HeadRecipe(_Struct, frozen=True, kw_only=True):
    """What a recipe says of a head that is not the model's first."""

    relation: Relation | None = None
    groups: dict[Key, Annotated[list[Key], Meta(min_length=1)]] = {}


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
    pack: Wordings | None = None
    """Prompt packs, by name: their findings come first, with their published wordings."""
    findings: list[FindingRecipe] = []
    """After :func:`read_recipe`, those of the packs and the recipe's own. Left out: every class of a
    classifier."""
    relation: Relation | None = None
    """How the findings of the model's first head hang together; by default the first that it can score."""
    groups: dict[Key, Annotated[list[Key], Meta(min_length=1)]] = {}
    """Unions of alternatives whose shares are added up, of the first head."""
    heads: dict[HeadName, HeadRecipe] = {}
    """The same of other heads, by name."""
    templates: Annotated[list[Text], Meta(min_length=1)] | None = None
    """Each is filled with each prompt, or with the key; by default prompts stand as they are."""
    examination: Examination | None = None
    """How the images of an examination are pooled; left out, they are not."""
    golden: GoldenRecipe | None = None
    text_graph: bool = True
    """False leaves the text graph out: smaller, but prompts can then only be imported."""

    @property
    def packs(self) -> list[str]:
        """Names of the prompt packs."""
        return [self.pack] if isinstance(self.pack, str) else self.pack or []


AnyRecipe = TypeVar("AnyRecipe", bound=Recipe)


def read_recipe(path: Path) -> Recipe:
    """Read a recipe without sections of other packages; see :func:`read_recipe_as`."""
    return read_recipe_as(path, Recipe)


def read_recipe_as(path: Path, kind: type[AnyRecipe]) -> AnyRecipe:
    """Read and validate a recipe.

    Parameters
    ----------
    path : Path
        YAML file, UTF-8, at most 1 MiB; no tags, aliases or merges; keys are text, and dates are text.
    kind : type of Recipe
        What it may hold: a subclass adds sections of its own.

    Raises
    ------
    BuildError
        ``recipe.invalid``, naming file, line and key.
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
        raise _invalid(path, mark.line + 1 if mark else None, f"not valid YAML: {problem}") from error
    try:
        recipe = msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise _from_validation(path, tree, str(error)) from error
    for number, part in enumerate(recipe.door.refused_body_parts):
        if not body_part_words(part):
            line = _line(tree, ["door", "refused_body_parts", number])
            what = "a body part without letter or digit refuses nothing"
            raise _invalid(path, line, what, key=f"door.refused_body_parts[{number}]", found=part)
    packed = _pack_findings(path, tree, recipe)
    taken = [(finding.head, finding.key) for finding in packed]
    for number, finding in enumerate(recipe.findings):
        fault = key_fault(finding.key)
        if fault:
            line, what = _line(tree, ["findings", number, "key"]), f"this cannot be a key: it {fault}"
            raise _invalid(path, line, what, key=f"findings[{number}].key", found=ascii(finding.key))
        if (finding.head, finding.key) in taken:
            line, what = _line(tree, ["findings", number, "key"]), "two findings have the same key"
            raise _invalid(path, line, what, key=f"findings[{number}].key", found=finding.key)
        taken.append((finding.head, finding.key))
    if not taken and any(name.value == "findings" for name, _ in tree.value):
        raise _invalid(
            path, _line(tree, ["findings"]), _in_words("Expected `array` of length >= 1"), key="findings"
        )
    return msgspec.structs.replace(recipe, findings=[*packed, *recipe.findings])


def _pack_findings(path: Path, tree: yaml.Node, recipe: Recipe) -> list[FindingRecipe]:
    """Return the findings of the recipe's packs; one that two packs have alike is taken once."""
    names = recipe.packs
    refuse = partial(_invalid, path, _line(tree, ["pack"]), key="pack")
    if names and recipe.templates:
        raise refuse("a pack brings whole wordings, which templates cannot be filled with", found="templates")
    found: dict[str, FindingRecipe] = {}
    for name in names:
        try:
            pack = read_pack(name)
        except PromptError as error:
            raise refuse(error.message, expected=error.expected, found=name) from error
        if pack.relation != (recipe.relation or "independent"):
            expected = f"relation: {pack.relation}"
            raise refuse(
                "the findings of the pack hang together in another way", expected=expected, found=name
            )
        if pack.relation == "ordinal" and len(names) > 1:
            raise refuse(LONGER_SCALE, expected="this pack alone", found=name)
        for each in pack.findings:
            finding = FindingRecipe(
                key=each.key, prompt=each.prompts, display=each.display, code=each.code
            )  # fmt: skip
            if found.setdefault(each.key, finding).prompt != finding.prompt:
                raise refuse("two packs word a finding differently", expected="one of them", found=each.key)
    return list(found.values())


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
            raise _invalid(path, None, "the recipe is no ordinary file")
        if facts.st_size > _LIMIT_BYTES:
            raise _invalid(path, None, "the file is too large", expected=f"at most {_LIMIT_BYTES >> 20} MiB")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise _invalid(path, None, f"the recipe cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise _invalid(path, None, "the recipe is not UTF-8 text") from error


def _compose(path: Path, text: str) -> yaml.MappingNode:
    tree = yaml.compose(text, Loader=_Loader)
    if not isinstance(tree, yaml.MappingNode):
        raise _invalid(path, 1, "the recipe must be a mapping of keys to values")
    return tree


def _refuse_bombs(path: Path, text: str) -> None:
    """Refuse what can blow up a small file without end, before anything is built of it."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        line = event.start_mark.line + 1 if event.start_mark else None
        if isinstance(event, yaml.AliasEvent):
            raise _invalid(path, line, "YAML aliases are not allowed in a recipe")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _LIMIT_DEPTH:
            raise _invalid(
                path, line, "the recipe is nested too deep", expected=f"at most {_LIMIT_DEPTH} levels"
            )


def _refuse_surprises(path: Path, tree: yaml.Node) -> None:
    """Refuse a key written twice, one that is not text, half a character, and every tag of no plain value."""
    waiting: list[tuple[yaml.Node, str]] = [(tree, "")]
    while waiting:
        node, place = waiting.pop()
        line = node.start_mark.line + 1
        if node.tag not in _TAGS:
            raise _invalid(path, line, "YAML tags are not allowed in a recipe", key=place, found=node.tag)
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
                raise _invalid(path, line, "a key must be text; put it in quotes", key=name)
            if key.value in seen:
                raise _invalid(path, line, "a key is written twice", key=name)
            seen.add(key.value)
            waiting.append((value, name))


def _refuse_surrogate(path: Path, line: int, text: str, place: str) -> None:
    r"""An escape such as ``"\ud800"`` is half of a character: no file can hold it."""
    half = re.search("[\ud800-\udfff]", text)
    if half:
        raise _invalid(
            path,
            line,
            "the text holds half of a character (a lone surrogate)",
            key=place,
            expected="the character itself, or its escape of eight digits",
            found=f"U+{ord(half[0]):04X}",
        )


def _from_validation(path: Path, tree: yaml.Node, message: str) -> BuildError:
    """Turn msgspec's ``message - at `$.findings[0].key``` into file, line and key."""
    what, _, where = message.partition(" - at `$")
    steps = _steps(where.rstrip("`"))
    unknown = re.search(r"unknown field `([^`]+)`", what)
    if unknown:
        steps.append(unknown[1])
    key = _key(steps)
    missing = re.search(r"missing required field `([^`]+)`", what)
    if missing:
        key = f"{key}.{missing[1]}".lstrip(".")
    expected = None
    if what.startswith("Invalid enum value"):  # of a key at the top, or of one in `examination`
        kind = get_type_hints(Recipe if len(steps) == 1 else Examination)[str(steps[-1])]
        choices = [
            value for part in (kind, *get_args(kind)) for value in get_args(part) if not get_args(value)
        ]
        expected = f"one of {', '.join(str(value) for value in choices if value is not type(None))}"
    return _invalid(path, _line(tree, steps), _in_words(what), key=key, expected=expected)


@contextmanager
def with_lines(path: Path, recipe: Recipe) -> Iterator[None]:
    """Give a refusal of what is read already, which knows its key, the line of that key too.

    Parameters
    ----------
    path : Path
        The recipe's file.
    recipe : Recipe
        As read of it: the findings of its packs come before the file's own.
    """
    tree = _compose(path, _read(path))  # before the long work, in which the file may change
    try:
        yield
    except BuildError as error:
        file, _, key = (error.artefact or "").partition(", key ")
        if file != path.name or not key:
            raise
        steps = _steps(f".{key}")
        if steps[0] == "findings" and len(steps) > 1:
            own = [value.value for name, value in tree.value if name.value == "findings"]
            number = int(steps[1]) - (len(recipe.findings) - len(own[0] if own else []))
            steps = ["pack"] if number < 0 else ["findings", number, *steps[2:]]
        fields = {**error.to_json(), "artefact": f"{file}, line {_line(tree, steps)}, key {_key(steps)}"}
        raise BuildError(str(fields.pop("code")), str(fields.pop("message")), **fields) from error


def _in_words(what: str) -> str:
    """Say it in the words of YAML, and the rule for keys in any words."""
    if "matching regex" in what:
        return "this cannot be a key: 1 to 128 characters, no leading space, no slash, no control character"
    if not what.startswith("Expected"):
        what = what.replace("Object contains unknown field", "unknown key")
        what = what.replace("Object missing required field", "missing key")
        return what.replace("Invalid enum value", "this value is not known:")
    what = re.sub("`([a-z |]+)`", lambda kinds: _kinds(kinds[1]), what)
    for sign, more, least in ((">=", "more", "at least"), ("<=", "fewer", "at most")):
        what = re.sub(f"text of length {sign} (\\d+)", rf"text of \1 or {more} characters", what)
        what = re.sub(f"a list of length {sign} (\\d+)", rf"a list of \1 or {more} entries", what)
        what = what.replace(f" {sign} ", f" of {least} ")
    unquoted = re.match("Expected (text|text or a list of texts), got (a whole|a decimal|true)", what)
    return f"{what}; put it in quotes" if unquoted else what


def _kinds(names: str) -> str:
    """Name msgspec's ``str | array | null`` as people do; that a key may be left out is not said."""
    kinds = [name for name in names.split(" | ") if name != "null" or names == "null"]
    return (
        "text or a list of texts"
        if kinds == ["str", "array"]
        else " or ".join(_WORDS[kind] for kind in kinds)
    )


def _steps(place: str) -> list[str | int]:
    """Take ``.findings[0].key`` apart."""
    return [name or (0 if index == "..." else int(index)) for name, index in _PATH.findall(place)]


def _key(steps: list[str | int]) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).lstrip(".")


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
