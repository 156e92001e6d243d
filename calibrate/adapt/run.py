"""Adapt a recipe to a site: divide the images, make the stages, score their bundles, report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.adapt.cases import Columns, read_cases
from promptray.calibrate.adapt.data import Data, level_of, notes_of, prepare
from promptray.calibrate.adapt.page import page
from promptray.calibrate.adapt.part_tables import part_labels, splits
from promptray.calibrate.adapt.plot import plot
from promptray.calibrate.adapt.probe import ClassWeights
from promptray.calibrate.adapt.progress import Progress
from promptray.calibrate.adapt.recommend import recommend
from promptray.calibrate.adapt.report import (
    AdaptationReport,
    FileRef,
    FineTuneFacts,
    Intervals,
    ProbeFacts,
    StageName,
)
from promptray.calibrate.adapt.report import Data as DataReport
from promptray.calibrate.adapt.run_folder import PAGE, PICTURE, REPORT, SPLITS, RunFolder
from promptray.calibrate.adapt.scoring import CONFIDENCE, SideBySide, notes_of_stages, score_stages
from promptray.calibrate.adapt.source import Source, groups_of, read_source
from promptray.calibrate.adapt.split import require_enough
from promptray.calibrate.adapt.stages import Workshop, choose_stages
from promptray.calibrate.adapt.whole import replace_whole
from promptray.calibrate.evaluation_report import RefusedImage, to_json
from promptray.calibrate.tables.image_folder import ImageFolder
from promptray.calibrate.tables.scores import write_scores
from promptray.runtime.version import VERSION

if TYPE_CHECKING:
    from promptray.calibrate.adapt.fine_tune import FineTuning


Trained = Mapping[str, ProbeFacts | FineTuneFacts]
#: Option -> field of FineTuning.
TRAINING_OPTIONS = {
    "epochs": "epochs",
    "batch_size": "batch",
    "learning_rate": "rate",
    "patience": "stop",
    "label_smoothing": "smoothing",
}


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

    def __post_init__(self) -> None:
        if not (0 < self.test < 1 and 0 <= self.val < 1 and self.test + self.val < 1):
            raise ValueError("test and val are shares of the images that leave some to train on")


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
    source = read_source(recipe)
    stages, notes = choose_stages(settings.stages, source)
    if source.recipe.examination:
        notes.append("Numbers are of single images, not of examinations.")
    files = ImageFolder(images)
    cases = read_cases(labels, source.keys, source.names(settings.class_names), columns)
    with folder.locked():
        data = prepare(
            cases,
            files,
            test=settings.test,
            val=settings.val if "fine-tune" in stages else 0.0,
            seed=settings.seed,
            missing=settings.missing,
            progress=progress,
        )
        facts = _facts(source, data, stages, settings, columns)
        folder.require_same(facts)
        shop = Workshop(source, output, files, settings.modality, cache, columns.label, progress)
        data, vectors = _read(shop, data, stages, settings)
        folder.claim(facts)  # not before: who is refused for an image may change options and stay
        replace_whole(output / SPLITS, splits(data))
        for part in sorted(set(data.parts)):
            replace_whole(output / f"{part}.labels.csv", part_labels(data, part))
        trained = _make(shop, data, vectors, stages, settings)
        scored = score_stages(shop, data, stages, draws=settings.draws, seed=settings.seed)
        unlabelled = len(set(files.files) - {files.resolve(image.file) for image in cases.images})
        report = _report(source, data, columns, settings, scored, trained, notes, unlabelled)
        for stage in scored.stages:
            replace_whole(output / f"{stage.name}.scores.csv", write_scores(stage.scores))
        replace_whole(output / PICTURE, plot(report))
        replace_whole(output / PAGE, page(report, PICTURE).encode())
        replace_whole(output / REPORT, to_json(report))
    return report


def _facts(
    source: Source, data: Data, stages: Sequence[str], settings: Settings, columns: Columns
) -> dict[str, object]:
    """Return what a run rests on, by the words that a refusal names it with."""
    options = asdict(settings)
    names = {field: option for option, field in TRAINING_OPTIONS.items()}
    training = {names.get(field, field): value for field, value in options.pop("training").items()}
    return {
        "software": VERSION,
        "recipe": source.sha256,
        "checkpoint": source.model_sha256,
        "golden images": source.golden_sha256,
        "labels": data.cases.labels.sha256,
        "images": hashlib.sha256(json.dumps(data.pictures).encode()).hexdigest(),
        "columns": asdict(columns),
        "options": {**options, **training, "stages": list(stages)},
    }


def _read(
    shop: Workshop, data: Data, stages: Sequence[StageName], settings: Settings
) -> tuple[Data, NDArray[np.float32]]:
    """Read every image once, before the long work; return those that could be read, and any vectors."""
    if set(stages) == {"zero-shot"}:
        vectors, refused = np.empty((len(data.parts), 0), np.float32), shop.unreadable(data)
    else:
        vectors, refused = shop.features(data)
    data = data.without(refused, settings.missing)
    require_enough(data.cases, data.parts, validated="fine-tune" in stages)
    return data, np.delete(vectors, list(refused), axis=0)


def _make(
    shop: Workshop, data: Data, vectors: NDArray[np.float32], stages: Sequence[StageName], settings: Settings
) -> Trained:
    """Make the stages, and return the facts of what was trained."""
    trained: dict[str, ProbeFacts | FineTuneFacts] = {}
    if "zero-shot" in stages:
        shop.zero_shot()
    if "probe" in stages:
        trained["probe"] = shop.probe(data, vectors, settings.class_weights, settings.seed)
    if "fine-tune" in stages:
        trained["fine-tune"] = shop.fine_tune(data, _training(settings))
    return trained


def _training(settings: Settings) -> FineTuning:
    from promptray.calibrate.adapt.fine_tune import FineTuning

    given: dict[str, object] = dict(settings.training)
    return FineTuning(class_weights=settings.class_weights, seed=settings.seed, **given)  # type: ignore[arg-type]


def _report(
    source: Source,
    data: Data,
    columns: Columns,
    settings: Settings,
    scored: SideBySide,
    trained: Trained,
    notes: list[str],
    unlabelled_files: int,
) -> AdaptationReport:
    names = [stage.name for stage in scored.stages]
    stages, differences = scored.reports(trained), scored.differences()
    by = "quadratic kappa" if source.ordinal else "macro F1"
    labels = data.cases.labels
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
            labels=FileRef(name=labels.table, sha256=labels.sha256),
            column=columns.label,
            images=len(data.parts),
            unlabelled=data.cases.unlabelled,
            left_out=RefusedImage.each(data.left_out),
            unused_columns=list(data.cases.unused),
            unlabelled_files=unlabelled_files,
        ),
        division=data.division(),
        intervals=Intervals(
            confidence=CONFIDENCE, draws=settings.draws, seed=settings.seed, units=scored.units
        ),
        stages=stages,
        differences=differences,
        advice=recommend(names, differences, by, scored.units, level_of(data.cases)[1]),
        notes=[*notes, *notes_of(data, names), *scored.notes(), *notes_of_stages(stages)],
    )
