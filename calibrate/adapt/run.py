"""Adapt a recipe to a site: divide the images, make the stages, score their bundles, report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from promptray.calibrate.adapt.cases import Columns, read_cases
from promptray.calibrate.adapt.data import Data, level_of, notes_of, prepare
from promptray.calibrate.adapt.measures import Drawn, Measured, difference, measure
from promptray.calibrate.adapt.page import page
from promptray.calibrate.adapt.probe import ClassWeights
from promptray.calibrate.adapt.recommend import recommend
from promptray.calibrate.adapt.report import (
    AdaptationReport,
    Advice,
    Difference,
    FileRef,
    FineTuneFacts,
    Intervals,
    ProbeFacts,
    StageName,
    StageReport,
)
from promptray.calibrate.adapt.report import Data as DataReport
from promptray.calibrate.adapt.run_folder import PAGE, REPORT, SPLITS, RunFolder
from promptray.calibrate.adapt.source import Source, groups_of, read_source
from promptray.calibrate.adapt.split import require_enough
from promptray.calibrate.adapt.stages import Workshop, choose_stages, origin_of
from promptray.calibrate.adapt.whole import replace_whole
from promptray.calibrate.evaluation_report import Estimate, RefusedImage, estimate, to_json
from promptray.calibrate.score_images import score_images
from promptray.calibrate.tables.image_folder import ImageFolder
from promptray.calibrate.tables.scores import ScoreTable, write_scores
from promptray.runtime.backends import BackendFacts
from promptray.runtime.disk import hash_file
from promptray.runtime.scorer import Scorer
from promptray.runtime.version import VERSION

if TYPE_CHECKING:
    from promptray.calibrate.adapt.fine_tune import FineTuning

Progress = Callable[[str, str, float], None]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Settings:
    """How to adapt.

    Attributes
    ----------
    stages : sequence of {"zero-shot", "probe", "fine-tune"}, optional
        By default all that the recipe can have.
    test, val : float
        Shares of the images, where the table does not divide them.
    seed : int
        Of the division, the folds, the training and the draws.
    class_weights : {"none", "balanced"}
        Whether in training each image counts once, or each class.
    modality : str, optional
        Of images that state none.
    missing : {"error", "count"}
        Whether images that are not there or cannot be read are an error, or left out and listed.
    draws : int
        Of units, for the intervals.
    training : mapping of str to number
        Fields of ``FineTuning`` that are not to be the default's.
    class_names : mapping of str to str
        What the table calls classes -> key.
    """

    stages: Sequence[StageName] | None = None
    test: float = 0.25
    val: float = 0.15
    seed: int = 0
    class_weights: ClassWeights = "none"
    modality: str | None = None
    missing: Literal["error", "count"] = "error"
    draws: int = 1000
    training: Mapping[str, float] = field(default_factory=dict)
    class_names: Mapping[str, str] = field(default_factory=dict)


def adapt(
    recipe: Path,
    images: Path,
    labels: Path,
    columns: Columns,
    output: Path,
    settings: Settings | None = None,
    *,
    cache: Path | None = None,
    progress: Progress = lambda stage, message, fraction: None,
) -> AdaptationReport:
    """Adapt a recipe's model to labelled images.

    A run that was killed goes on where it stopped when it is called again with the same arguments.

    Parameters
    ----------
    recipe : Path
        Of a dual encoder in open_clip's layout, or a classifier; its findings are the classes.
    images : Path
        Folder.
    labels : Path
        CSV: ``file``, the class, and what ``columns`` says.
    columns : Columns
    output : Path
        Folder for bundles, checkpoints, recipes and the report.
    settings : Settings, optional
    cache : Path, optional
        Of builds; by default the user's.
    progress : callable
        Called with (stage, message, fraction of the stage).

    Raises
    ------
    PromptRayError
        ``adapt.*``, ``table.*``, ``recipe.invalid``, ``output.*`` and what building and scoring raise.
    """
    settings = settings or Settings()
    folder = RunFolder(output)
    with folder.locked():
        source = read_source(recipe)
        stages, notes = choose_stages(settings.stages, source)
        files = ImageFolder(images)
        cases = read_cases(labels, source.keys, source.names(settings.class_names), columns)
        data = prepare(
            cases,
            files,
            test=settings.test,
            val=settings.val if "fine-tune" in stages else 0.0,
            seed=settings.seed,
            missing=settings.missing,
            progress=progress,
        )
        folder.claim(_facts(source, data, stages, settings, columns))
        replace_whole(output / SPLITS, data.splits())
        shop = Workshop(source, output, files, settings.modality, cache, columns.label, progress)
        data, made = _make(shop, data, stages, settings)
        tables, reports, measured = _score(shop, data, stages, made, settings)
        notes += [*notes_of(data, stages), *_notes(reports, measured)]
        named = {*data.left_out, *(image.file for image in data.cases.images)}
        unlabelled = len(set(files.files) - named)
        report = _report(source, data, columns, settings, reports, measured, notes, unlabelled)
        for stage, table in tables.items():
            replace_whole(output / f"{stage}.scores.csv", write_scores(table))
        replace_whole(output / PAGE, page(report).encode())
        replace_whole(output / REPORT, to_json(report))
    return report


def _facts(
    source: Source, data: Data, stages: Sequence[str], settings: Settings, columns: Columns
) -> dict[str, object]:
    """Return what a run rests on, by the words that a refusal names it with."""
    rows = [data.hashes, data.cases.classes.tolist(), data.parts, data.units.tolist()]
    return {
        "software": VERSION,
        "recipe": source.sha256,
        "checkpoint": hash_file(source.checkpoint)[0],
        "labels": data.cases.labels.sha256,
        "images": hashlib.sha256(json.dumps(rows).encode()).hexdigest(),
        "columns": asdict(columns),
        "stages": list(stages),
        "options": {**asdict(settings), "stages": None},
    }


def _make(
    shop: Workshop, data: Data, stages: Sequence[StageName], settings: Settings
) -> tuple[Data, dict[str, ProbeFacts | FineTuneFacts]]:
    """Make the stages; return the images that could be read, and the facts of what was trained."""
    made: dict[str, ProbeFacts | FineTuneFacts] = {}
    vectors = np.empty((0, 0), np.float32)
    if set(stages) - {"zero-shot"}:
        vectors, refused = shop.features(data)  # also reads every image once, before the long work
        vectors = np.delete(vectors, list(refused), axis=0)
        data = data.without(refused, settings.missing)
        require_enough(data.cases, data.parts)
    if "zero-shot" in stages:
        shop.zero_shot()
    if "probe" in stages:
        made["probe"] = shop.probe(data, vectors, settings.class_weights, settings.seed)
    if "fine-tune" in stages:
        made["fine-tune"] = shop.fine_tune(data, _training(settings))
    return data, made


def _training(settings: Settings) -> FineTuning:
    from promptray.calibrate.adapt.fine_tune import FineTuning

    given: dict[str, object] = dict(settings.training)
    return FineTuning(class_weights=settings.class_weights, seed=settings.seed, **given)  # type: ignore[arg-type]


def _score(
    shop: Workshop,
    data: Data,
    stages: Sequence[StageName],
    made: Mapping[str, ProbeFacts | FineTuneFacts],
    settings: Settings,
) -> tuple[dict[str, ScoreTable], list[StageReport], dict[str, Measured]]:
    """Score the test part with every bundle, and measure where all of them have scores."""
    rows = data.rows("test")
    images = [data.cases.images[row] for row in rows]
    tables: dict[str, ScoreTable] = {}
    origins: dict[str, tuple[FileRef, FileRef, BackendFacts]] = {}
    for stage in stages:
        path = shop.bundle(stage)
        with Scorer.open(path, site=None) as scorer:
            tables[stage] = score_images(
                scorer,
                images,
                shop.images,
                modality=settings.modality,
                progress=partial(_scored, shop.progress, stage),
            )
            origins[stage] = *origin_of(scorer.bundle, path.name), scorer.backend
    shares = {stage: table.values["softmax"] for stage, table in tables.items()}
    both = ~np.any([np.isnan(each).any(1) for each in shares.values()], axis=0)
    measured = {
        stage: measure(
            data.cases.keys,
            data.cases.classes[rows][both],
            each[both],
            data.units[rows][both],
            ordinal=shop.source.ordinal,
            groups=groups_of(shop.source),
            draws=settings.draws,
            seed=settings.seed,
        )
        for stage, each in shares.items()
    }
    reports = []
    for stage in stages:
        facts = made.get(stage)
        bundle, checkpoint, backend = origins[stage]
        refused = [RefusedImage(file=name, code=code) for name, code in tables[stage].refused.items()]
        reports.append(
            StageReport(
                name=stage,
                bundle=bundle,
                checkpoint=checkpoint,
                backend=backend,
                refused=refused,
                numbers=_estimates(measured[stage].numbers),
                confusion=measured[stage].confusion,
                probe=facts if isinstance(facts, ProbeFacts) else None,
                fine_tune=facts if isinstance(facts, FineTuneFacts) else None,
            )
        )
    return tables, reports, measured


def _scored(progress: Progress, stage: str, _: str, message: str, part: float) -> None:
    progress(stage, f"scored {message}", part)


def _estimates(numbers: Mapping[str, Drawn]) -> dict[str, Estimate]:
    return {
        name: estimate(np.array([number.value]), [number.draws], CONFIDENCE)
        for name, number in numbers.items()
    }


def _notes(reports: Sequence[StageReport], measured: Mapping[str, Measured]) -> list[str]:
    notes = []
    for stage in reports:
        if stage.probe and not stage.probe.folds:
            notes.append(
                "Probe: too few units of the train part have a class for some to be held out, so the "
                "penalty was not chosen but is a default."
            )
        if stage.probe and not stage.probe.converged:
            notes.append("Probe: the fit did not converge; its weights are those of the last iteration.")
        if stage.fine_tune and stage.fine_tune.best == 0:
            notes.append(
                "Fine-tuning did not lower the validation loss: its bundle is the network that it began with."
            )
        if stage.refused:
            notes.append(
                f"{stage.name}: {len(stage.refused)} test images got no score; all stages are measured "
                "without them."
            )
    return notes


def _report(
    source: Source,
    data: Data,
    columns: Columns,
    settings: Settings,
    stages: list[StageReport],
    measured: Mapping[str, Measured],
    notes: list[str],
    unlabelled_files: int,
) -> AdaptationReport:
    by = "quadratic kappa" if source.ordinal else "macro F1"
    pairs = {
        (earlier.name, later.name): {
            name: found
            for name in later.numbers
            if (found := difference(measured[later.name], measured[earlier.name], name)) is not None
        }
        for earlier, later in combinations(stages, 2)
    }
    differences = [
        Difference(earlier=earlier, later=later, numbers=_estimates(numbers))
        for (earlier, later), numbers in pairs.items()
    ]
    units = len(np.unique(data.units[data.rows("test")]))
    advice = recommend(
        [stage.name for stage in stages],
        {(each.earlier, each.later): each.numbers[by] for each in differences if by in each.numbers},
        by,
        units,
        level_of(data.cases)[1],
    )
    return AdaptationReport(
        schema="promptray-adaptation",
        schema_version=1,
        software=f"promptray {VERSION}",
        recipe=FileRef(name=source.path.name, sha256=source.sha256),
        family=source.family,
        classes=source.keys,
        ordinal=source.ordinal,
        groups={name: list(members) for name, members in groups_of(source).items()},
        data=DataReport(
            labels=FileRef(name=data.cases.labels.table, sha256=data.cases.labels.sha256),
            column=columns.label,
            images=len(data.parts),
            unlabelled=data.cases.unlabelled,
            left_out=[RefusedImage(file=name, code=code) for name, code in data.left_out.items()],
            unused_columns=list(data.cases.unused),
            unlabelled_files=unlabelled_files,
        ),
        division=data.division(),
        intervals=Intervals(confidence=CONFIDENCE, draws=settings.draws, seed=settings.seed, units=units),
        stages=stages,
        differences=differences,
        advice=Advice(stage=advice.stage, by=by, reasons=advice.reasons),  # type: ignore[arg-type]
        notes=notes,
    )
