"""From a recipe's findings to the bundle's: templates filled, wordings checked against the family."""

from __future__ import annotations

import re
from collections.abc import Sequence

from promptray.export.model_facts import ModelFile
from promptray.export.recipe import FindingRecipe, Recipe
from promptray.runtime.bundle.manifest import Finding, Head, TextRule
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
    if recipe.relation not in facts.relations:
        raise _invalid(
            f"{artefact}, key relation",
            f"the family {facts.family} cannot score this relation",
            f"one of {', '.join(facts.relations)}",
            recipe.relation,
        )
    if recipe.relation == "exclusive" and len(recipe.findings) < 2:
        raise _invalid(f"{artefact}, key findings", "alternatives are at least two", "two findings", "one")
    return Head(
        name=facts.head.name,
        bank=facts.head.bank,
        relation=recipe.relation,
        activation="none" if recipe.relation == "independent" else "softmax",
        map=facts.head.map,
    )


def text_rule_of(recipe: Recipe, facts: ModelFile, artefact: str) -> TextRule:
    """Return the family's text rule with the recipe's templates.

    Raises
    ------
    BuildError
        ``recipe.invalid`` for a template without ``{}``, or several where the model scores one wording.
    """
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
    return TextRule(
        cleaning=facts.text.cleaning,
        tokenizer=facts.text.tokenizer,
        context=facts.text.context,
        templates=list(templates),
    )


def findings_of(recipe: Recipe, facts: ModelFile, artefact: str) -> list[Finding]:
    """Return the findings with every wording written out.

    Raises
    ------
    BuildError
        ``recipe.invalid``, naming the finding, for wordings that the head cannot score.
    """
    findings = []
    for number, stated in enumerate(recipe.findings):
        prompts = _wordings(stated.prompt or stated.key, stated.prompt is None, recipe, facts)
        negative = _wordings(stated.negative_prompt or (), False, recipe, facts)
        try:
            require_wordings(facts.ensemble, recipe.relation, stated.key, prompts, negative)
        except PromptError as error:
            side = "negative_prompt" if negative or recipe.relation == "pair" else "prompt"
            where = f"{artefact}, key findings[{number}].{side}"
            raise _invalid(where, error.message, error.expected or "", error.found or "") from error
        findings.append(_finding(stated, prompts, negative, facts.head.name))
    return findings


def _wordings(stated: str | Sequence[str], bare: bool, recipe: Recipe, facts: ModelFile) -> list[str]:
    """Fill the recipe's templates; the family's own only with a bare finding name."""
    texts = [stated] if isinstance(stated, str) else list(stated)
    templates = recipe.templates or (facts.text.templates if bare else ["{}"])
    return [template.replace("{}", text) for text in texts for template in templates]


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
