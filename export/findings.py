"""From a recipe's findings to the bundle's: each to its head, templates filled, wordings checked."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from promptray.export.families.base import left_out_note
from promptray.export.model_facts import HeadFile, ModelFile
from promptray.export.recipe import LONGER_SCALE, FindingRecipe, HeadRecipe, Recipe
from promptray.runtime.bundle.fields import Key
from promptray.runtime.bundle.manifest import ALTERNATIVES, Activation, Finding, Relation, TextRule
from promptray.runtime.bundle.validate import TEMPLATE
from promptray.runtime.bundle.words import key_fault
from promptray.runtime.errors import BuildError, PromptError
from promptray.runtime.packs import read_pack
from promptray.runtime.wording import require_wordings


@dataclass(frozen=True)
class Stated:
    """A finding as the recipe states it, or a class that it takes without listing it.

    Attributes
    ----------
    place : str
        Its key in the recipe, for errors.
    finding : FindingRecipe
    """

    place: str
    finding: FindingRecipe

    @property
    def class_name(self) -> str:
        """What a classifier's weights call it."""
        return self.finding.class_name or self.finding.key


def by_head(recipe: Recipe, facts: ModelFile, artefact: str) -> dict[str, list[Stated]]:
    """Return the findings of every head. One of classes of which the recipe lists none takes all of them.

    Raises
    ------
    BuildError
        ``recipe.invalid`` for a head that the model has not, a key that occurs twice in one, findings beside
        a pack that is a scale, or a head of wordings without findings.
    """
    found: dict[str, list[Stated]] = {head.name: [] for head in facts.heads}
    for number, finding in enumerate(recipe.findings):
        place = f"{artefact}, key findings[{number}]"
        name = facts.heads[0].name if finding.head is None else finding.head
        if name not in found:
            why = [note for note in facts.notes if note.startswith(left_out_note(name, ""))]
            what = ": ".join(["this model has no such head", *why])
            raise _invalid(f"{place}.head", what, ", ".join(found), name)
        if any(each.finding.key == finding.key for each in found[name]):
            raise _invalid(f"{place}.key", "two findings have the same key", "different keys", finding.key)
        found[name].append(Stated(place, finding))
    _require_whole_scales(recipe, found[facts.heads[0].name], artefact)
    for head in facts.heads:
        if not found[head.name]:
            found[head.name] = [_whole_class(head, name, artefact) for name in head.classes or []]
        if not found[head.name]:
            what = f"the head {head.name!r} scores wordings, and the recipe gives it none"
            raise _invalid(f"{artefact}, key findings", what, "at least one finding, or a pack", "none")
    return found


def _require_whole_scales(recipe: Recipe, first: Sequence[Stated], artefact: str) -> None:
    """Refuse findings beside a pack that is a scale; those of other heads are no steps of it."""
    for pack in map(read_pack, recipe.packs):
        added = [each.finding.key for each in first][len(pack.findings) :]
        if pack.relation == "ordinal" and added:
            raise _invalid(f"{artefact}, key pack", LONGER_SCALE, "this pack alone", ", ".join(added)[:80])


def _whole_class(head: HeadFile, name: str, artefact: str) -> Stated:
    try:
        msgspec.convert(name, Key)
        fault = key_fault(name)
    except msgspec.ValidationError:
        fault = "breaks the rule for keys"
    if fault:
        what = f"a class of the head {head.name!r} cannot be a key as it is called: it {fault}"
        expected = "its findings in the recipe, each with key and class_name"
        raise _invalid(f"{artefact}, key findings", what, expected, ascii(name))
    return Stated(f"{artefact}, key findings", FindingRecipe(key=name, head=head.name))


@dataclass(frozen=True)
class Settings:
    """What a recipe says of a head as a whole.

    Attributes
    ----------
    relation : str
    activation : str
    groups : dict of str to list of str
    place : str
        Where in the recipe it stands: "" at the top, ``heads.NAME.``.
    """

    relation: Relation
    activation: Activation
    groups: dict[str, list[str]]
    place: str


def settings_of(
    recipe: Recipe, facts: ModelFile, head: HeadFile, stated: Sequence[Stated], artefact: str
) -> Settings:
    """Return relation and groups of a head: of the first one they stand at the recipe's top.

    Raises
    ------
    BuildError
        ``recipe.invalid`` for a head that the model has not, a relation that the head cannot score, or
        groups of anything but its alternatives.
    """
    others = [each.name for each in facts.heads[1:]]
    for name in recipe.heads:
        if name not in others:
            what = "this names no other head of the model; what is said of the first stands at the top"
            raise _invalid(f"{artefact}, key heads.{name}", what, ", ".join(others) or "no other head", name)
    first = head.name == facts.heads[0].name
    own = (
        HeadRecipe(relation=recipe.relation, groups=recipe.groups)
        if first
        else recipe.heads.get(head.name, HeadRecipe())
    )
    place = f"{artefact}, key " + ("" if first else f"heads.{head.name}.")
    relation = own.relation or head.relations[0]
    if relation not in head.relations:
        what = f"the family {facts.family} cannot score this relation"
        raise _invalid(f"{place}relation", what, f"one of {', '.join(head.relations)}", relation)
    if relation in ALTERNATIVES and len(stated) < 2:
        raise _invalid(f"{artefact}, key findings", "alternatives are at least two", "two findings", "one")
    keys = {each.finding.key for each in stated}
    for name, members in own.groups.items():
        unknown = [key for key in members if key not in keys]
        if unknown or relation not in ALTERNATIVES or len(set(members)) != len(members):
            what = "a group adds up different findings that are alternatives"
            expected = f"some of {', '.join(sorted(keys))}, with relation {' or '.join(ALTERNATIVES)}"
            found = f"{', '.join(unknown or members)}, with relation {relation}"
            raise _invalid(f"{place}groups.{name}", what, expected, found)
    activation: Activation = head.activation if relation == "independent" else "softmax"
    return Settings(relation, activation, own.groups, place)


def text_rule_of(recipe: Recipe, facts: ModelFile, artefact: str) -> TextRule | None:
    """Return the family's text rule with the recipe's templates; None for a model without text.

    Raises
    ------
    BuildError
        ``recipe.invalid`` for a template without ``{}``, or several where the model scores one wording.
    """
    if facts.text is None:
        if recipe.templates:
            raise _invalid(
                f"{artefact}, key templates", "this model has no text", "no templates", "templates"
            )
        return None
    templates = recipe.templates or facts.text.templates
    for number, template in enumerate(templates):
        if re.fullmatch(TEMPLATE, template) is None:
            where = f"{artefact}, key templates[{number}]"
            raise _invalid(where, "a template holds {} once and no other brace", "{}", repr(template)[:80])
    ensemble = next(head.ensemble for head in facts.heads if head.name == facts.text.head)
    if ensemble == "none" and len(templates) > 1:
        raise _invalid(
            f"{artefact}, key templates",
            "this family scores one wording",
            "one template",
            str(len(templates)),
        )
    return msgspec.structs.replace(facts.text, templates=list(templates))


def findings_of(
    recipe: Recipe,
    text: TextRule | None,
    head: HeadFile,
    relation: Relation,
    stated: Sequence[Stated],
    artefact: str,
) -> list[Finding]:
    """Return the findings of a head with every wording written out.

    Parameters
    ----------
    text : TextRule or None
        The family's, with its own templates.

    Raises
    ------
    BuildError
        ``recipe.invalid``, naming the finding, for wordings that the head cannot score.
    """
    if head.classes is not None or text is None:
        return _classes(head, stated, artefact)
    findings = []
    for each in stated:
        own = each.finding
        if own.class_name is not None:
            what = "this head scores wordings, not classes"
            raise _invalid(f"{each.place}.class_name", what, "prompt", "class_name")
        templates = recipe.templates or (text.templates if own.prompt is None else ["{}"])
        prompts = _wordings(own.prompt or own.key, templates)
        negative = _wordings(own.negative_prompt or (), recipe.templates or ["{}"])
        try:
            require_wordings(head.ensemble, relation, own.key, prompts, negative)
        except PromptError as error:
            side = "negative_prompt" if negative or relation == "pair" else "prompt"
            where = f"{each.place}.{side}"
            raise _invalid(where, error.message, error.expected or "", error.found or "") from error
        findings.append(_finding(own, prompts, negative, head.name))
    return findings


def _wordings(stated: str | Sequence[str], templates: Sequence[str]) -> list[str]:
    texts = [stated] if isinstance(stated, str) else list(stated)
    return [template.replace("{}", text) for text in texts for template in templates]


def _classes(head: HeadFile, stated: Sequence[Stated], artefact: str) -> list[Finding]:
    """Return a classifier's findings: every class once, in the recipe's order."""
    for each in stated:
        if each.finding.prompt is not None or each.finding.negative_prompt is not None:
            what = "this head has classes and reads no text"
            raise _invalid(f"{each.place}.prompt", what, "class_name", "a prompt")
    asked, known = [each.class_name for each in stated], head.classes or []
    if sorted(asked) != sorted(known):
        odd = sorted({*asked} ^ {*known}) or sorted({name for name in asked if asked.count(name) > 1})
        raise _invalid(
            f"{artefact}, key findings",
            "the findings must be the model's classes, each once: the score of one depends on all of them",
            ", ".join(known),
            ", ".join(odd),
        )
    return [_finding(each.finding, [], [], head.name) for each in stated]


def _finding(stated: FindingRecipe, prompts: list[str], negative: list[str], head: str) -> Finding:
    return Finding(
        key=stated.key,
        display=stated.display or stated.key,
        prompts=prompts,
        negative_prompts=negative,
        head=head,
        code=stated.code,
    )


def _invalid(artefact: str, message: str, expected: str, found: str) -> BuildError:
    return BuildError(
        "recipe.invalid",
        message,
        artefact=artefact,
        expected=expected,
        found=found,
        cure="docs/recipe.md lists every key with an example",
    )
