"""Decision thresholds of a recipe's section `gate`: flips are counted where the site will decide."""

from __future__ import annotations

import difflib
import math

from promptray.calibrate.pipeline.recipe import GateRecipe
from promptray.runtime.bundle.manifest import Manifest
from promptray.runtime.errors import BuildError


def thresholds_of(recipe: GateRecipe, manifest: Manifest, artefact: str) -> dict[str, dict[str, float]]:
    """Return the stated thresholds by head and key.

    Parameters
    ----------
    recipe : GateRecipe
        ``thresholds`` maps a finding to a logit, or a head to such a mapping.
    manifest : Manifest
    artefact : str
        Base name of the recipe.

    Raises
    ------
    BuildError
        ``recipe.invalid``: no such head or finding, one that several heads have, or no finite number.
    """
    findings = {head.name: [each.key for each in manifest.findings_of(head.name)] for head in manifest.heads}
    found: dict[str, dict[str, float]] = {}
    for name, value in recipe.thresholds.items():
        if isinstance(value, dict):
            if name not in findings:
                raise _invalid(artefact, name, "the model has no such head", ", ".join(findings))
            stated = [(name, f"{name}.{key}", key, own) for key, own in value.items()]
        else:
            heads = [head for head, keys in findings.items() if name in keys]
            if len(heads) > 1:
                cure = f"thresholds: {{{heads[0]}: {{{name}: {value:g}}}}}"
                raise _invalid(artefact, name, "several heads have this finding", f"a head, as in {cure}")
            stated = [(heads[0] if heads else "", name, name, value)]
        for head, where, key, threshold in stated:
            if key not in findings.get(head, []):
                raise _unknown(artefact, where, key, findings, head)
            if not math.isfinite(threshold):
                raise _invalid(artefact, where, "a threshold is not finite", "a logit")
            found.setdefault(head, {})[key] = threshold
    return found


def _unknown(artefact: str, where: str, key: str, findings: dict[str, list[str]], head: str) -> BuildError:
    keys = findings[head] if head else [each for keys in findings.values() for each in keys]
    near = difflib.get_close_matches(key, keys, n=3, cutoff=0.6) or keys[:3]
    return _invalid(artefact, where, "the model has no such finding", ", ".join(near))


def _invalid(artefact: str, key: str, what: str, expected: str) -> BuildError:
    return BuildError(
        "recipe.invalid",
        what,
        artefact=f"{artefact}, key gate.thresholds.{key}",
        expected=expected,
        cure="docs/recipe.md lists every key with an example",
    )
