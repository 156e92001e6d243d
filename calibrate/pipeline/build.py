"""Recipe -> load -> export fp32 -> check -> quantise -> gate -> bundle.

The stages before `quantise` are those of `promptray.export.build`. A changed model is written only when it
passed its gates against the fp32 original, as the runtime runs it on this machine; there is no way round.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec

import promptray.calibrate
from promptray.calibrate.pipeline.gate import Gates, require_passed
from promptray.calibrate.pipeline.gated import added_prompts, summary, with_gates
from promptray.calibrate.pipeline.image_set import ImageSet, Progress
from promptray.calibrate.pipeline.quantised import Quantise, quantised
from promptray.calibrate.pipeline.recipe import BuildRecipe, check_sections, kind_of, limits_of
from promptray.calibrate.pipeline.scores import Model
from promptray.calibrate.quantise import quantise
from promptray.export.build import Checked, checked, require_writable, write
from promptray.export.draft import GATED_ON, Draft
from promptray.export.recipe import read_recipe_as, with_lines
from promptray.export.sources import Sources
from promptray.export.stage_cache import StageCache, default_cache
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.validate_gated import changed_heads
from promptray.runtime.errors import BuildError
from promptray.runtime.golden import read_golden
from promptray.runtime.machine_class import consumers_here


def build(
    recipe_path: Path,
    output: Path,
    *,
    cache: Path | None = None,
    progress: Progress = lambda stage, message, fraction: None,
    change: Quantise = quantise,
) -> Bundle:
    """Build a bundle from a recipe, quantised and gated where it says so.

    Parameters
    ----------
    recipe_path : Path
        The YAML recipe (docs/recipe.md); paths in it are relative to its folder.
    output : Path
        The bundle directory to make; it must not exist. Of a model that is not passed, the reports are
        written to ``<output>.gate`` beside it.
    cache : Path, optional
        Folder of finished stages; by default the user's cache folder. It holds no pictures.
    progress : callable
        Called with (stage, message, fraction of the whole build).
    change : callable, optional
        What quantises a graph.

    Returns
    -------
    Bundle
        Written, sealed and gated.

    Raises
    ------
    BuildError
        The recipe, checkpoint, export, quantisation or a gate was refused; no bundle is written.
    BundleError
        ``bundle.exists`` or ``bundle.unwritable``.
    TableError
        ``table.*``, of the images' tables.
    """
    recipe = read_recipe_as(recipe_path, BuildRecipe)
    require_writable(output)
    root = cache or default_cache()
    with with_lines(recipe_path, recipe):
        changes = recipe.quantise is not None
        fp32 = checked(
            Sources(recipe, recipe_path), StageCache(root), _part(progress, 0.0, 0.4 if changes else 1.0)
        )
        manifest = fp32.draft.manifest
        check_sections(
            recipe, recipe_path.name, [head.name for head in manifest.heads],
            text=manifest.graph("text") is not None,
        )  # fmt: skip
        if not changes:
            return write(output, fp32.draft, fp32.parity, progress)
        stages = StageCache(root, promptray.calibrate)
        made, parity = _changed(recipe, recipe_path, output, fp32, stages, progress, change)
        return write(output, made, parity, progress)


def _changed(
    recipe: BuildRecipe,
    path: Path,
    output: Path,
    fp32: Checked,
    stages: StageCache,
    progress: Progress,
    change: Quantise,
) -> tuple[Draft, dict[str, Any]]:
    """Quantise, gate, and return what is to be written."""
    calibration, images = _image_sets(recipe, path, fp32, stages, _part(progress, 0.4, 0.5))
    changed = quantised(recipe, fp32.draft, calibration, stages, _part(progress, 0.5, 0.6), change=change)
    limits = limits_of(recipe, path.name)
    gates = Gates(Model(fp32.draft), images, limits, stages, _part(progress, 0.6, 0.95))
    candidate = Model(changed.draft)
    consumer = consumers_here(GATED_ON)[0]
    names = changed_heads(changed.draft.manifest, consumer)
    heads = [head for head in changed.draft.manifest.heads if head.name in names]
    held = [gates.hold(candidate, head, f"head-{head.name}", "scores") for head in heads]
    text = added_prompts(changed.draft, stages) if "text" in changed.reports else None
    if text is not None:
        head = changed.draft.manifest.text_head
        assert head is not None  # noqa: S101 - a text graph was changed
        held.append(gates.hold(text, head, "text", "added prompts"))
    require_passed(held, output.with_name(f"{output.name}.gate"), f"{recipe.name} on {consumer}")
    made = with_gates(candidate, text, read_golden(fp32.draft), heads, held, stages)
    kind = kind_of(recipe, path.name)
    summaries = [msgspec.to_builtins(summary(each, kind, images, changed)) for each in held]
    notes = [*fp32.parity["notes"], *(f"calibration: {warning}" for warning in changed.warnings)]
    return made, {**fp32.parity, "notes": notes, "gates": summaries}


def _image_sets(
    recipe: BuildRecipe, path: Path, fp32: Checked, stages: StageCache, progress: Progress
) -> tuple[ImageSet | None, ImageSet]:
    """Read the images of both sections; none may be in both."""
    assert recipe.quantise is not None  # noqa: S101 - check_sections looked
    assert recipe.gate is not None  # noqa: S101 - likewise
    manifest, root = fp32.draft.manifest, path.resolve().parent
    facts: dict[str, Any] = {
        "door": manifest.door, "preprocessing": manifest.preprocessing, "stages": stages, "progress": progress
    }  # fmt: skip
    keys = {finding.key for finding in manifest.findings}
    asked = recipe.quantise.calibration
    calibration = ImageSet("calibration", asked, root, keys, **facts) if asked else None
    images = ImageSet("gate", recipe.gate, root, keys, **facts)
    both = set(images.sha256s) & set(calibration.sha256s if calibration else ())
    if both:
        raise BuildError(
            "gate.images",
            "images that the model is quantised with are among those it is gated on",
            artefact=f"{path.name}, key gate.images",
            expected="no picture in both sections",
            found=f"{len(both)} of {len(set(images.sha256s))} pictures, as the network sees them",
            cure="take images of other patients for the gate",
        )
    return calibration, images


def _part(progress: Progress, first: float, last: float) -> Progress:
    """Return a progress whose 0 to 1 is a part of the whole build's."""
    return lambda stage, message, fraction: progress(stage, message, first + fraction * (last - first))
