"""The recipe of a bundle: a YAML file, validated so that an error names file, line and key."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

import msgspec
import yaml
from msgspec import Meta

from promptray.export.recipe_words import in_words
from promptray.export.recipe_yaml import invalid, key_of, line_of, read_tree, steps_of
from promptray.runtime.backends import HOST
from promptray.runtime.bundle.fields import HeadName, Key, Text
from promptray.runtime.bundle.image_rules import Door
from promptray.runtime.bundle.manifest import Code, Examination, ModelFacts, Relation
from promptray.runtime.bundle.words import body_part_words, key_fault
from promptray.runtime.errors import BuildError, PromptError
from promptray.runtime.packs import read_pack

#: Why a pack that is a scale stands alone in its head.
LONGER_SCALE = "the pack is a scale, and other findings would make it a longer one"

HostBackend = Literal["onnxruntime-cpu", "openvino"]
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
    backends: Annotated[list[HostBackend], Meta(min_length=1)] = msgspec.field(default_factory=lambda: [HOST])
    """Backends of the processor that the graphs are gated on, and so are for. The first encodes all text."""

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
    tree, content = read_tree(path)
    try:
        recipe = msgspec.convert(content, kind)
    except msgspec.ValidationError as error:
        raise _from_validation(path, tree, kind, str(error)) from error
    for number, part in enumerate(recipe.door.refused_body_parts):
        if not body_part_words(part):
            line = line_of(tree, ["door", "refused_body_parts", number])
            what = "a body part without letter or digit refuses nothing"
            raise invalid(path, line, what, key=f"door.refused_body_parts[{number}]", found=part)
    first, *others = recipe.backends
    if first != HOST or len(set(others)) < len(others) or first in others:
        line, found = line_of(tree, ["backends"]), ", ".join(recipe.backends)
        what = f"graphs are gated on {HOST} first, and on no backend twice"
        raise invalid(path, line, what, key="backends", found=found)
    packed = _pack_findings(path, tree, recipe)
    taken = [(finding.head, finding.key) for finding in packed]
    for number, finding in enumerate(recipe.findings):
        fault = key_fault(finding.key)
        if fault:
            line, what = line_of(tree, ["findings", number, "key"]), f"this cannot be a key: it {fault}"
            raise invalid(path, line, what, key=f"findings[{number}].key", found=ascii(finding.key))
        if (finding.head, finding.key) in taken:
            line, what = line_of(tree, ["findings", number, "key"]), "two findings have the same key"
            raise invalid(path, line, what, key=f"findings[{number}].key", found=finding.key)
        taken.append((finding.head, finding.key))
    if not taken and any(name.value == "findings" for name, _ in tree.value):
        raise invalid(
            path, line_of(tree, ["findings"]), in_words("Expected `array` of length >= 1"), key="findings"
        )
    return msgspec.structs.replace(recipe, findings=[*packed, *recipe.findings])


def _pack_findings(path: Path, tree: yaml.Node, recipe: Recipe) -> list[FindingRecipe]:
    """Return the findings of the recipe's packs; one that two packs have alike is taken once."""
    names = recipe.packs
    refuse = partial(invalid, path, line_of(tree, ["pack"]), key="pack")
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


def _from_validation(path: Path, tree: yaml.Node, kind: type[Recipe], message: str) -> BuildError:
    """Turn msgspec's ``message - at `$.findings[0].key``` into file, line and key."""
    what, _, where = message.partition(" - at `$")
    steps = steps_of(where.rstrip("`"))
    unknown = re.search(r"unknown field `([^`]+)`", what)
    if unknown:
        steps.append(unknown[1])
    key = key_of(steps)
    missing = re.search(r"missing required field `([^`]+)`", what)
    if missing:
        key = f"{key}.{missing[1]}".lstrip(".")
    expected = None
    if what.startswith("Invalid enum value"):
        expected = f"one of {', '.join(_choices(kind, steps))}"
    return invalid(path, line_of(tree, steps), in_words(what), key=key, expected=expected)


def _choices(kind: object, steps: Sequence[object]) -> list[str]:
    """Return the values of the closed set at a place below a structure, through lists and unions."""
    kinds = [kind]
    for step in steps:
        structures = [each for each in _members(kinds) if hasattr(each, "__struct_fields__")]
        own = [get_type_hints(each).get(str(step)) for each in structures]
        kinds = [each for each in own if each is not None] or kinds  # a place in a list, a key of a mapping
    return [str(each) for each in _members(kinds) if isinstance(each, str)]


def _members(kinds: Sequence[object]) -> list[object]:
    """Return what types are made of, down to structures and the values of closed sets."""
    found: list[object] = []
    for kind in kinds:
        parts = get_args(kind)
        found += _members(parts) if parts else [kind]
    return found


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
    tree, _ = read_tree(path)  # before the long work, in which the file may change
    try:
        yield
    except BuildError as error:
        file, _, key = (error.artefact or "").partition(", key ")
        if file != path.name or not key:
            raise
        steps = steps_of(f".{key}")
        if steps[0] == "findings" and len(steps) > 1:
            own = [value.value for name, value in tree.value if name.value == "findings"]
            number = int(steps[1]) - (len(recipe.findings) - len(own[0] if own else []))
            steps = ["pack"] if number < 0 else ["findings", number, *steps[2:]]
        fields = {**error.to_json(), "artefact": f"{file}, line {line_of(tree, steps)}, key {key_of(steps)}"}
        raise BuildError(str(fields.pop("code")), str(fields.pop("message")), **fields) from error
