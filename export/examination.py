"""The rule of an examination, as a recipe states it."""

from __future__ import annotations

from collections.abc import Sequence

from promptray.export.recipe import Recipe
from promptray.runtime.bundle.manifest import Head
from promptray.runtime.errors import BuildError
from promptray.runtime.exam_rule import rule_fault


def check_examination(recipe: Recipe, heads: Sequence[Head], artefact: str) -> None:
    """Refuse a rule that does not mean one thing for the heads of the model.

    Parameters
    ----------
    recipe : Recipe
    heads : sequence of Head
        With the relation that the recipe asks for.
    artefact : str
        Name of the recipe's file.

    Raises
    ------
    BuildError
        ``recipe.invalid``, naming the key.
    """
    fault = rule_fault(recipe.examination, heads) if recipe.examination else None
    if fault:
        raise BuildError(
            "recipe.invalid",
            f"the rule of the examination {fault.what}",
            artefact=f"{artefact}, key examination.{fault.field}",
            expected=fault.expected,
            found=fault.found,
            cure="docs/examinations.md explains the rule",
        )
