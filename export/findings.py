"""From a recipe's findings to the bundle's: templates filled, wordings checked against the family."""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from promptray.export.model_facts import ModelFile
from promptray.export.recipe import FindingRecipe, Recipe
from promptray.runtime.bundle.manifest import ALTERNATIVES, Finding, Head, TextRule
from promptray.runtime.bundle.validate import TEMPLATE
from promptray.runtime.errors import BuildError, PromptError
from promptray.runtime.wording import require_wordings


def head_of(recipe: Recipe, facts: ModelFile, artefact: str) -> Head:
    """Return the family's head with the relation that the recipe asks for.

    Raises
    ------
    BuildError
        ``recipe.invalid`` for a relation that the family cannot score.
    """
    relation = recipe.relation or facts.relations[0]
    if relation not in facts.relations:
        raise _invalid(
            f"{artefact}, key relation",
            f"the family {facts.family} cannot score this relation",
            f"one of {', '.join(facts.relations)}",
            relation,
        )
    if relation in ALTERNATIVES and len(recipe.findings) < 2:
        raise _invalid(f"{artefact}, key findings", "alternatives are at least two", "two findings", "one")
    keys = {finding.key for finding in recipe.findings}
    for name, members in recipe.groups.items():
        unknown = [key for key in members if key not in keys]
        if unknown or relation not in ALTERNATIVES or len(set(members)) != len(members):
            what = "a group adds up different findings that are alternatives"
            expected = f"some of {', '.join(sorted(keys))}, with relation {' or '.join(ALTERNATIVES)}"
            found = f"{', '.join(unknown or members)}, with relation {relation}"
            raise _invalid(f"{artefact}, key groups.{name}", what, expected, found)
    return Head(
        name=facts.head.name,
        bank=facts.head.bank,
        relation=relation,
        activation=facts.head.activation if relation == "independent" else "softmax",
        map=facts.head.map,
        groups=recipe.groups,
    )


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
    if facts.ensemble == "none" and len(templates) > 1:
        raise _invalid(
            f"{artefact}, key templates",
            "this family scores one wording",
            "one template",
            str(len(templates)),
        )
    return msgspec.structs.replace(facts.text, templates=list(templates))


def findings_of(recipe: Recipe, facts: ModelFile, artefact: str) -> list[Finding]:
    """Return the findings with every wording written out.

    Raises
    ------
    BuildError
        ``recipe.invalid``, naming the finding, for wordings that the head cannot score.
    """
    if facts.text is None:
        return _classes(recipe, facts, artefact)
    findings = []
    for number, stated in enumerate(recipe.findings):
        if stated.class_name is not None:
            where = f"{artefact}, key findings[{number}].class_name"
            raise _invalid(where, "this model scores wordings, not classes", "prompt", "class_name")
        templates = recipe.templates or (facts.text.templates if stated.prompt is None else ["{}"])
        prompts = _wordings(stated.prompt or stated.key, templates)
        negative = _wordings(stated.negative_prompt or (), recipe.templates or ["{}"])
        try:
            require_wordings(
                facts.ensemble, recipe.relation or facts.relations[0], stated.key, prompts, negative
            )
        except PromptError as error:
            side = "negative_prompt" if negative or recipe.relation == "pair" else "prompt"
            where = f"{artefact}, key findings[{number}].{side}"
            raise _invalid(where, error.message, error.expected or "", error.found or "") from error
        findings.append(_finding(stated, prompts, negative, facts.head.name))
    return findings


def _wordings(stated: str | Sequence[str], templates: Sequence[str]) -> list[str]:
    texts = [stated] if isinstance(stated, str) else list(stated)
    return [template.replace("{}", text) for text in texts for template in templates]


def _classes(recipe: Recipe, facts: ModelFile, artefact: str) -> list[Finding]:
    """Return a classifier's findings: every class once, in the recipe's order."""
    for number, stated in enumerate(recipe.findings):
        if stated.prompt is not None or stated.negative_prompt is not None:
            where = f"{artefact}, key findings[{number}].prompt"
            raise _invalid(where, "this model has classes and reads no text", "class_name", "a prompt")
    asked, known = [class_name(stated) for stated in recipe.findings], facts.classes or []
    if sorted(asked) != sorted(known):
        odd = sorted({*asked} ^ {*known}) or sorted({name for name in asked if asked.count(name) > 1})
        raise _invalid(
            f"{artefact}, key findings",
            "the findings must be the model's classes, each once: the score of one depends on all of them",
            ", ".join(known),
            ", ".join(odd),
        )
    return [_finding(stated, [], [], facts.head.name) for stated in recipe.findings]


def class_name(stated: FindingRecipe) -> str:
    """Return what a classifier's weights call a finding."""
    return stated.class_name or stated.key


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
