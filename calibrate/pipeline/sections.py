"""The images of a recipe's sections, read alike; what a model is gated on must not have made it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from promptray.calibrate.image_set import ImageSet, Progress
from promptray.calibrate.pipeline.disjoint import require_disjoint
from promptray.calibrate.pipeline.images_recipe import ImagesRecipe
from promptray.calibrate.pipeline.recipe import BuildRecipe
from promptray.export.stage_cache import StageCache
from promptray.runtime.bundle.manifest import Manifest

#: What errors call the images that sources of engines take their ranges from.
ENGINES = "tensorrt.calibration"


@dataclass(frozen=True)
class SectionImages:
    """The images of each section of a recipe that has one.

    Attributes
    ----------
    gate : ImageSet
    distil, calibration, search, engines : ImageSet, optional
    unchecked : list of str
        What could not be found out of them: for the reports.
    """

    gate: ImageSet
    distil: ImageSet | None
    calibration: ImageSet | None
    search: ImageSet | None
    engines: ImageSet | None
    unchecked: list[str]


def section_images(
    recipe: BuildRecipe, path: Path, manifest: Manifest, stages: StageCache, progress: Progress
) -> SectionImages:
    """Read the images of all sections.

    Parameters
    ----------
    recipe : BuildRecipe
    path : Path
        Its file.
    manifest : Manifest
        Of the original.
    stages : StageCache
    progress : callable

    Raises
    ------
    BuildError
        ``gate.images``.
    TableError
        ``table.*``.
    """

    def read(section: str, asked: ImagesRecipe) -> ImageSet:
        return images_of(section, asked, path, manifest, stages, progress)

    assert recipe.gate is not None  # noqa: S101 - check_sections looked
    distil = read("distil", recipe.distil.taken_from) if recipe.distil else None
    asked = recipe.quantise.calibration if recipe.quantise else None
    calibration = read("calibration", asked) if asked else None
    by = recipe.quantise.search if recipe.quantise else None
    search = read("search", by) if isinstance(by, ImagesRecipe) else calibration if by else None
    typed = recipe.tensorrt.calibration if recipe.tensorrt else None
    engines = read(ENGINES, typed) if typed else None
    gate = read("gate", recipe.gate)
    made_with = {"distilled": distil, "quantised": calibration, "typed for engines": engines}
    if search is not calibration:
        made_with["searched for"] = search
    unchecked = require_disjoint(gate, {did: each for did, each in made_with.items() if each}, path.name)
    if recipe.distil_text is not None:
        unchecked.append(
            "Whether patients of the golden images, whose logits the text side learned, are among those of "
            "the gate was not checked: no patients are named for golden images."
        )
    return SectionImages(gate, distil, calibration, search, engines, unchecked)


def images_of(
    section: str,
    asked: ImagesRecipe,
    path: Path,
    manifest: Manifest,
    stages: StageCache,
    progress: Progress,
) -> ImageSet:
    """Read the images of one section; parameters and errors as of :func:`section_images`."""
    return ImageSet(
        section,
        asked,
        path.resolve().parent,
        {finding.key for finding in manifest.findings},
        door=manifest.door,
        preprocessing=manifest.preprocessing,
        stages=stages,
        progress=progress,
    )
