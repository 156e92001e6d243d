"""From a recipe to the ranking of its model's groups of layers, without a gate and without a bundle."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import promptray.calibrate
from promptray.calibrate.image_set import ImageSet, Progress
from promptray.calibrate.pipeline.effects import effects, findings
from promptray.calibrate.pipeline.images_recipe import ImagesRecipe
from promptray.calibrate.pipeline.mixes import Mixes
from promptray.calibrate.pipeline.recipe import BY_GROUPS, BuildRecipe, check_quantise
from promptray.calibrate.quantise.sensitivity_report import SensitivityReport
from promptray.export.build import checked
from promptray.export.draft import Draft
from promptray.export.recipe import read_recipe_as, with_lines
from promptray.export.sources import Sources
from promptray.export.stage_cache import StageCache, default_cache
from promptray.runtime.errors import BuildError
from promptray.runtime.machine_class import machine_class
from promptray.runtime.version import VERSION


def rank_layers(
    recipe_path: Path,
    *,
    graphs: Collection[str] = (),
    cache: Path | None = None,
    progress: Progress = lambda stage, message, fraction: None,
) -> SensitivityReport:
    """Rank the groups of layers that a recipe quantises by their effect on the scores.

    Parameters
    ----------
    recipe_path : Path
        With a section `quantise`, its images under `calibration`: ranges are taken from them, and they are
        scored. A section `gate` is not needed.
    graphs : collection of str, optional
        ``image`` and ``head:NAME``: which graphs to look at; by default all whose scheme quantises by layers.
    cache : Path, optional
        Folder of finished stages; by default the user's cache folder.
    progress : callable
        Called with (stage, message, fraction).

    Raises
    ------
    BuildError
        ``recipe.invalid`` of a recipe that quantises no such graph, or has a student; ``quantise.*``.
    TableError
        ``table.*``, of the images' table.
    """
    recipe = read_recipe_as(recipe_path, BuildRecipe)
    root = cache or default_cache()
    with with_lines(recipe_path, recipe):
        _require_sections(recipe, recipe_path.name)
        original = checked(
            Sources(recipe, recipe_path),
            StageCache(root),
            lambda stage, message, fraction: progress(stage, message, 0.3 * fraction),
        ).draft
        manifest, asked = original.manifest, recipe.quantise
        assert asked is not None  # noqa: S101 - required above
        heads = [head.name for head in manifest.heads]
        check_quantise(asked, recipe_path.name, heads, text=manifest.graph("text") is not None)
        stages = StageCache(root, promptray.calibrate)
        images = _images(asked.calibration, recipe_path, original, stages, progress)
        mixes = Mixes(recipe, original, images, stages, only=_titles(original, graphs))
        if not mixes.schemes or images is None:
            raise _nothing(recipe_path.name, original)
        ranked = effects(
            mixes, images, stages, lambda stage, message, part: progress(stage, message, 0.4 + 0.6 * part)
        )
    return SensitivityReport(
        schema="promptray-sensitivity",
        schema_version=1,
        software=f"promptray {VERSION}",
        model=manifest.name,
        machine=machine_class(),
        images=images.facts,
        schemes={title: str(scheme.__struct_config__.tag) for title, scheme in mixes.schemes.items()},
        findings=findings(mixes),
        sensitivity=ranked,
    )


def _images(
    asked: ImagesRecipe | None, path: Path, draft: Draft, stages: StageCache, progress: Progress
) -> ImageSet | None:
    if asked is None:
        return None
    return ImageSet(
        "calibration",
        asked,
        path.resolve().parent,
        {finding.key for finding in draft.manifest.findings},
        door=draft.manifest.door,
        preprocessing=draft.manifest.preprocessing,
        stages=stages,
        progress=lambda stage, message, fraction: progress(stage, message, 0.3 + 0.1 * fraction),
    )


def _require_sections(recipe: BuildRecipe, artefact: str) -> None:
    if recipe.quantise is None:
        raise BuildError(
            "recipe.invalid",
            "the recipe quantises nothing, so there is nothing to rank",
            artefact=artefact,
            expected="a section 'quantise' with a scheme and a section 'calibration' in it",
            cure="docs/quantisation.md has an example",
        )
    if recipe.distil is not None:
        raise BuildError(
            "recipe.invalid",
            "layers are ranked of the checkpoint's own model, and this recipe puts a student in its place",
            artefact=f"{artefact}, key distil",
            expected="no section 'distil'",
            cure="write quantise.search: a build then ranks the student's layers and chooses among them",
        )


def _titles(draft: Draft, graphs: Collection[str]) -> list[str] | None:
    """Return the titles of graphs as the command line names them: ``image``, ``head:NAME``."""
    if not graphs:
        return None
    named = {graph.title.replace(" ", ":", 1): graph.title for graph in draft.manifest.graphs}
    for each in graphs:
        if each not in named:
            raise BuildError(
                "quantise.graph",
                "the model has no such graph",
                artefact=each,
                expected=", ".join(name for name in named if name != "text"),
                cure="take a name from that list",
            )
    return [named[each] for each in graphs]


def _nothing(artefact: str, draft: Draft) -> BuildError:
    tags = " or ".join(str(each.__struct_config__.tag) for each in BY_GROUPS)
    named = [graph.title.replace(" ", ":", 1) for graph in draft.manifest.graphs if graph.role != "text"]
    return BuildError(
        "recipe.invalid",
        "no graph that is asked for has a scheme that quantises by layers",
        artefact=f"{artefact}, key quantise",
        expected=f"{tags}, of {', '.join(named)}",
        cure="docs/quantisation.md has the schemes",
    )
