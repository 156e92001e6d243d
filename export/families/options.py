"""The refusal of a recipe's ``model_options``, in one wording for the families."""

from __future__ import annotations

from promptray.runtime.errors import BuildError


def invalid_option(name: str, message: str, expected: str, found: str) -> BuildError:
    """Return the refusal of an option, ``recipe.invalid``."""
    return BuildError(
        "recipe.invalid",
        message,
        artefact=f"model_options.{name}",
        expected=expected,
        found=found[:120],
        cure="`promptray families` lists the options",
    )
