"""What a recipe makes of one head of a model, without the exported files that a whole plan hashes."""

from __future__ import annotations

from promptray.export.findings import Settings, by_head, findings_of, settings_of
from promptray.export.model_facts import ModelFile
from promptray.export.recipe import Recipe
from promptray.runtime.bundle.manifest import Finding


def planned(
    recipe: Recipe, facts: ModelFile, artefact: str = "recipe.yaml", *, head: int = 0
) -> tuple[Settings, list[Finding]]:
    """Return the settings and the findings of a head, by default the first."""
    own = facts.heads[head]
    stated = by_head(recipe, facts, artefact)[own.name]
    settings = settings_of(recipe, facts, own, stated, artefact)
    return settings, findings_of(recipe, facts.text, own, settings.relation, stated, artefact)
