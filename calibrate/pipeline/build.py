"""Recipe -> load -> export fp32 -> check -> distil -> quantise -> gate -> (sources of engines) -> bundle.

The stages before `distil` are those of `promptray.export.build`; a student goes through them, too. A changed
model is written only when it passed its gates against the original in fp32, as the runtime runs it on this
machine; there is no way round.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

import promptray.calibrate
from promptray.calibrate.image_set import ImageSet, Progress
from promptray.calibrate.pipeline.changed_graph import Quantise
from promptray.calibrate.pipeline.distilled import distilled
from promptray.calibrate.pipeline.engine_sources import Sourced, with_engine_sources
from promptray.calibrate.pipeline.gate import Asked, Gates, Held
from promptray.calibrate.pipeline.gate_folder import GateFolder
from promptray.calibrate.pipeline.gated import added_prompts, summary, with_gates
from promptray.calibrate.pipeline.mixes import Mixes
from promptray.calibrate.pipeline.passed import require_passed
from promptray.calibrate.pipeline.quantised import Changed, quantised
from promptray.calibrate.pipeline.recipe import BuildRecipe, check_sections, kind_of, limits_of
from promptray.calibrate.pipeline.scores import Model
from promptray.calibrate.pipeline.search import searched
from promptray.calibrate.pipeline.sections import ENGINES, SectionImages, images_of, section_images
from promptray.calibrate.pipeline.self_test import require_spread
from promptray.calibrate.pipeline.speed import time_notes
from promptray.calibrate.pipeline.tensorrt_recipe import check_tensorrt
from promptray.calibrate.pipeline.text_student import added_wordings, text_taught
from promptray.calibrate.pipeline.thresholds import thresholds_of
from promptray.calibrate.quantise import quantise
from promptray.export.build import Checked, checked, require_writable, write
from promptray.export.draft import GATED_ON, Draft
from promptray.export.recipe import read_recipe_as, with_lines
from promptray.export.sources import Sources
from promptray.export.stage_cache import StageCache, default_cache
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.manifest import Head
from promptray.runtime.bundle.validate_gated import changed_heads
from promptray.runtime.golden import read_golden
from promptray.runtime.text import EncodedPrompt


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
        The bundle directory to make; it must not exist. The gates' reports are left in ``<output>.gate``
        beside it, also of a model that is not passed: they point to single images, which a bundle does not.
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
    folder = GateFolder(output) if recipe.changes else None
    by_search = recipe.quantise is not None and recipe.quantise.search is not None
    trials = GateFolder(output, "search") if by_search else None
    root = cache or default_cache()
    with with_lines(recipe_path, recipe):
        sources = Sources(recipe, recipe_path)
        plain = _part(progress, 0.0, 0.3 if recipe.changes or recipe.tensorrt else 1.0)
        original = checked(sources, StageCache(root), plain)
        manifest = original.draft.manifest
        check_sections(
            recipe, recipe_path.name, [head.name for head in manifest.heads],
            text=manifest.graph("text") is not None,
        )  # fmt: skip
        if recipe.tensorrt is not None:
            check_tensorrt(recipe.tensorrt, recipe_path.name, original.draft)
        stages = StageCache(root, promptray.calibrate)
        if folder is None or recipe.gate is None:
            typed, part = recipe.tensorrt and recipe.tensorrt.calibration, _part(progress, 0.3, 0.4)
            own = images_of(ENGINES, typed, recipe_path, manifest, stages, part) if typed else None
            sourced = _sourced(recipe, original.draft, original.draft, own, stages, progress, change)
            return write(output, sourced.draft, _with_sources(original.parity, sourced), progress)
        folder.clear()
        thresholds = thresholds_of(recipe.gate, manifest, recipe_path.name)
        images = section_images(recipe, recipe_path, manifest, stages, _part(progress, 0.3, 0.4))
        job = _Build(recipe, recipe_path, sources, original, images, stages, progress)
        made = job.distilled()
        only_added = not recipe.changes_scores
        limits = limits_of(recipe, recipe_path.name, added=only_added)
        teacher = Model(original.draft)
        asked = Asked(images.gate, limits, thresholds, recipe.gate.pictures, images.unchecked)
        if trials is not None and images.search is not None:
            mixes = Mixes(recipe, made.draft, images.calibration, stages, others=True, change=change)
            by, part = Asked(images.search, limits, thresholds), _part(progress, 0.55, 0.6)
            found = searched(teacher, mixes, by, stages, trials, part)
            recipe, made = found.recipe, made.with_notes([found.note])
        changed = Changed(made.draft, {})
        if recipe.quantise is not None:
            part = _part(progress, 0.55, 0.6)
            changed = quantised(recipe, made.draft, images.calibration, stages, part, change=change)
        gates = Gates(teacher, asked, stages, _part(progress, 0.6, 0.95))
        added = job.added(made, changed, asked)
        held, passed = _gated(recipe, gates, added, made.fp32, changed, stages, folder)
        notes = [*made.notes, *(f"calibration: {warning}" for warning in changed.warnings)]
        notes += time_notes(original.draft, made.fp32.draft, changed.draft, stages, progress)
        parity = {**made.fp32.parity, "notes": [*made.fp32.parity["notes"], *notes]}
        parity["gates"] = job.summaries(held, changed)
        sourced = _sourced(recipe, made.fp32.draft, passed, images.engines, stages, progress, change)
        return write(output, sourced.draft, _with_sources(parity, sourced), progress)


def _sourced(
    recipe: BuildRecipe,
    fp32: Draft,
    made: Draft,
    images: ImageSet | None,
    stages: StageCache,
    progress: Progress,
    change: Quantise,
) -> Sourced:
    """Add what engines are compiled from, where the recipe asks for it."""
    if recipe.tensorrt is None:
        return Sourced(made, [])
    part = _part(progress, 0.95, 0.97) if recipe.changes else _part(progress, 0.4, 0.97)
    return with_engine_sources(recipe.tensorrt, fp32, made, images, stages, part, change=change)


def _with_sources(parity: dict[str, Any], sourced: Sourced) -> dict[str, Any]:
    """Say in ``parity.json`` what the sources of engines were held for, where there are any."""
    if not sourced.checked:
        return parity
    notes = [f"ranges of the sources of engines: {warning}" for warning in sourced.warnings]
    checked: list[dict[str, Any]] = msgspec.to_builtins(sourced.checked)
    return {**parity, "notes": [*parity["notes"], *notes], "sources": checked}


@dataclass(frozen=True)
class _Made:
    """The fp32 model that is quantised or goes into the bundle: the original, or students of it."""

    fp32: Checked
    """With the original's text side."""
    draft: Draft
    notes: list[str]
    held_out: Sequence[EncodedPrompt] | None = None
    """Wordings that a smaller text side did not learn from."""

    def with_notes(self, more: list[str]) -> _Made:
        return replace(self, notes=[*self.notes, *more])


@dataclass(frozen=True)
class _Build:
    """What the stages of one build rest on."""

    recipe: BuildRecipe
    path: Path
    sources: Sources
    original: Checked
    images: SectionImages
    stages: StageCache
    progress: Progress

    def distilled(self) -> _Made:
        """Make the students that the recipe asks for."""
        distil, images = self.recipe.distil, self.images.distil
        made = _Made(self.original, self.original.draft, list(self.images.unchecked))
        if distil is not None and images is not None:
            part, simulated = _part(self.progress, 0.4, 0.5), self.recipe.simulated
            taught = distilled(
                distil, self.path, self.sources, self.original, images, self.stages, part, simulated
            )
            fp32 = checked(taught, self.stages, _part(self.progress, 0.5, 0.55))
            made = replace(made, fp32=fp32, draft=fp32.draft)
            made = made.with_notes([f"distillation: {warning}" for warning in taught.warnings])
        if self.recipe.distil_text is None:
            return made
        smaller = text_taught(
            self.recipe.distil_text,
            self.path,
            self.sources,
            self.original.draft,
            made.draft,
            self.stages,
            _part(self.progress, 0.5, 0.55),
            gated=self.images.gate.sha256s,
            other_graphs_quantised=bool(self.recipe.quantise and self.recipe.quantise.schemes),
        )
        made = replace(made, draft=smaller.draft, held_out=smaller.held_out)
        return made.with_notes([f"distillation of the text side: {warning}" for warning in smaller.warnings])

    def added(self, made: _Made, changed: Changed, asked: Asked) -> tuple[Gates, Model] | None:
        """Return what a smaller text side is gated by, and the model with the wordings that it encoded."""
        if made.held_out is None:
            return None
        before, after = added_wordings(self.original.draft, changed.draft, made.held_out, self.stages)
        asked = replace(asked, limits=limits_of(self.recipe, self.path.name, added=True))
        return Gates(before, asked, self.stages, _part(self.progress, 0.6, 0.95)), after

    def summaries(self, held: Sequence[Held], changed: Changed) -> list[dict[str, Any]]:
        """Return what ``parity.json`` says of each gate."""
        images, said = self.images.gate, []
        for each in held:
            kind = kind_of(self.recipe, self.path.name, added=each.of == "added prompts")
            said.append(summary(each, kind, images, self.original.draft, changed))
        found: list[dict[str, Any]] = msgspec.to_builtins(said)
        return found


def _gated(
    recipe: BuildRecipe,
    gates: Gates,
    added: tuple[Gates, Model] | None,
    fp32: Checked,
    changed: Changed,
    stages: StageCache,
    folder: GateFolder,
) -> tuple[list[Held], Draft]:
    """Hold the changed model against the original; return the gates, all passed, and the draft with them."""
    manifest = changed.draft.manifest
    judged = [(model, _changed_heads(model)) for model in _candidates(recipe, changed.draft)]
    golden = read_golden(fp32.draft)
    original = "the original" if recipe.distil is None else "the student"
    for _, heads in judged:  # before the gates, which take minutes
        for each in heads:
            require_spread(manifest, each, golden.answers[each.name], original)
    before, text = added or (gates, None)
    if added is None and "text" in changed.reports:
        text = added_prompts(changed.draft, stages)
    held = []
    for candidate, heads in judged:
        own = [gates.hold(candidate, head, f"head-{head.name}", "scores") for head in heads]
        if text is not None and candidate.backend == GATED_ON:
            head = manifest.text_head
            assert head is not None  # noqa: S101 - a text graph was changed
            own.append(before.hold(text, head, "text", "added prompts"))
        held.append(own)
    cure = "train longer, on more images or wordings, or take a larger student (docs/distillation.md)"
    if recipe.quantise is not None:
        cure = "keep more layers high, or take another scheme (docs/quantisation.md)"
    consumers = ", ".join(candidate.consumer for candidate, _ in judged)
    every = [each for own in held for each in own]
    require_passed(every, folder, f"{recipe.name} on {consumers}", cure)
    passed = changed.draft
    for (candidate, heads), own in zip(judged, held, strict=True):
        if own:  # a backend that runs none of what was changed is not gated again
            of_text = text if candidate.backend == GATED_ON else None
            passed = with_gates(passed, candidate, of_text, golden, heads, own, stages)
    return every, passed


def _candidates(recipe: BuildRecipe, draft: Draft) -> list[Model]:
    return [Model(draft, backend=name) for name in recipe.backends]


def _changed_heads(model: Model) -> list[Head]:
    manifest = model.draft.manifest
    names = changed_heads(manifest, model.consumer)
    return [head for head in manifest.heads if head.name in names]


def _part(progress: Progress, first: float, last: float) -> Progress:
    """Return a progress whose 0 to 1 is a part of the whole build's."""
    return lambda stage, message, fraction: progress(stage, message, first + fraction * (last - first))
