"""Recipe -> load -> export fp32 -> check -> distil -> quantise -> gate -> bundle.

The stages before `distil` are those of `promptray.export.build`; a student goes through them, too. A changed
model is written only when it passed its gates against the original in fp32, as the runtime runs it on this
machine; there is no way round.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

import promptray.calibrate
from promptray.calibrate.pipeline.distilled import distilled
from promptray.calibrate.pipeline.gate import Gates, require_passed
from promptray.calibrate.pipeline.gated import added_prompts, summary, with_gates
from promptray.calibrate.pipeline.image_set import ImageSet, Progress
from promptray.calibrate.pipeline.quantised import Changed, Quantise, quantised
from promptray.calibrate.pipeline.recipe import BuildRecipe, check_sections, kind_of, limits_of
from promptray.calibrate.pipeline.scores import Model
from promptray.calibrate.pipeline.self_test import require_spread
from promptray.calibrate.quantise import quantise
from promptray.export.build import Checked, checked, require_writable, write
from promptray.export.recipe import read_recipe_as, with_lines
from promptray.export.sources import Sources
from promptray.export.stage_cache import StageCache, default_cache
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.validate_gated import changed_heads
from promptray.runtime.errors import BuildError
from promptray.runtime.golden import read_golden


def build(
    recipe_path: Path,
    output: Path,
    *,
    cache: Path | None = None,
    progress: Progress = lambda stage, message, fraction: None,
    change: Quantise = quantise,
) -> Bundle:
    """Build a bundle from a recipe, distilled, quantised and gated where it says so.

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
        The recipe, checkpoint, export, student, quantisation or a gate was refused; no bundle is written.
    BundleError
        ``bundle.exists`` or ``bundle.unwritable``.
    TableError
        ``table.*``, of the images' tables.
    """
    recipe = read_recipe_as(recipe_path, BuildRecipe)
    require_writable(output)
    root = cache or default_cache()
    with with_lines(recipe_path, recipe):
        sources = Sources(recipe, recipe_path)
        plain = _part(progress, 0.0, 0.3 if recipe.changes else 1.0)
        original = checked(sources, StageCache(root), plain)
        manifest = original.draft.manifest
        check_sections(
            recipe, recipe_path.name, [head.name for head in manifest.heads],
            text=manifest.graph("text") is not None,
        )  # fmt: skip
        if not recipe.changes:
            return write(output, original.draft, original.parity, progress)
        stages = StageCache(root, promptray.calibrate)
        images = _image_sets(recipe, recipe_path, original, stages, _part(progress, 0.3, 0.4))
        fp32, warnings = original, []
        if recipe.distil is not None and images.distil is not None:
            taught = distilled(
                recipe.distil,
                recipe_path,
                sources,
                original,
                images.distil,
                stages,
                _part(progress, 0.4, 0.5),
            )
            fp32 = checked(taught, stages, _part(progress, 0.5, 0.55))
            warnings = [f"distillation: {warning}" for warning in taught.warnings]
        changed = Changed(fp32.draft, {})
        if recipe.quantise is not None:
            part = _part(progress, 0.55, 0.6)
            changed = quantised(recipe, fp32.draft, images.calibration, stages, part, change=change)
            warnings += [f"calibration: {warning}" for warning in changed.warnings]
        parity = {**fp32.parity, "notes": [*fp32.parity["notes"], *warnings]}
        return _gated(
            recipe, recipe_path, output, original, fp32, changed, parity, images.gate, stages, progress
        )


def _gated(
    recipe: BuildRecipe,
    path: Path,
    output: Path,
    original: Checked,
    fp32: Checked,
    changed: Changed,
    parity: dict[str, Any],
    images: ImageSet,
    stages: StageCache,
    progress: Progress,
) -> Bundle:
    """Hold the changed model against the original and write it if it passed."""
    gates = Gates(
        Model(original.draft), images, limits_of(recipe, path.name), stages, _part(progress, 0.6, 0.95)
    )
    candidate = Model(changed.draft)
    manifest = changed.draft.manifest
    consumer = candidate.consumer
    names = changed_heads(manifest, consumer)
    heads = [head for head in manifest.heads if head.name in names]
    golden = read_golden(fp32.draft)
    model = "the original" if recipe.distil is None else "the student"
    for each in heads:  # before the gates, which take minutes
        require_spread(manifest, each, golden.answers[each.name], model)
    held = [gates.hold(candidate, head, f"head-{head.name}", "scores") for head in heads]
    text = added_prompts(changed.draft, stages) if "text" in changed.reports else None
    if text is not None:
        head = manifest.text_head
        assert head is not None  # noqa: S101 - a text graph was changed
        held.append(gates.hold(text, head, "text", "added prompts"))
    cure = "train longer, on more images, or take a larger student (docs/distillation.md)"
    if recipe.quantise is not None:
        cure = "keep more layers high, or take another scheme (docs/quantisation.md)"
    require_passed(held, output.with_name(f"{output.name}.gate"), f"{recipe.name} on {consumer}", cure)
    made = with_gates(candidate, text, golden, heads, held, stages)
    kind = kind_of(recipe, path.name)
    summaries = [
        msgspec.to_builtins(summary(each, consumer, kind, images, original.draft, changed)) for each in held
    ]
    return write(output, made, {**parity, "gates": summaries}, progress)


@dataclass(frozen=True)
class _Images:
    """The images of each section of a recipe that has one."""

    gate: ImageSet
    distil: ImageSet | None
    calibration: ImageSet | None


def _image_sets(
    recipe: BuildRecipe, path: Path, original: Checked, stages: StageCache, progress: Progress
) -> _Images:
    """Read the images of all sections; what a model is gated on must not have made it."""
    assert recipe.gate is not None  # noqa: S101 - check_sections looked
    manifest, root = original.draft.manifest, path.resolve().parent
    facts: dict[str, Any] = {
        "door": manifest.door, "preprocessing": manifest.preprocessing, "stages": stages, "progress": progress
    }  # fmt: skip
    keys = {finding.key for finding in manifest.findings}
    asked = {
        "distil": recipe.distil.taken_from if recipe.distil else None,
        "calibration": recipe.quantise.calibration if recipe.quantise else None,
    }
    made = {name: ImageSet(name, each, root, keys, **facts) for name, each in asked.items() if each}
    gate = ImageSet("gate", recipe.gate, root, keys, **facts)
    for name, verb in (("distil", "distilled"), ("calibration", "quantised")):
        both = set(gate.sha256s) & set(made[name].sha256s if name in made else ())
        if both:
            raise BuildError(
                "gate.images",
                f"images that the model is {verb} with are among those it is gated on",
                artefact=f"{path.name}, key gate.images",
                expected="no picture in both sections",
                found=f"{len(both)} of {len(set(gate.sha256s))} pictures, as the network sees them",
                cure="take images of other patients for the gate",
            )
    return _Images(gate, made.get("distil"), made.get("calibration"))


def _part(progress: Progress, first: float, last: float) -> Progress:
    """Return a progress whose 0 to 1 is a part of the whole build's."""
    return lambda stage, message, fraction: progress(stage, message, first + fraction * (last - first))
