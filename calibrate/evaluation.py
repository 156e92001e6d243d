"""Evaluate a scorer, or a table of scores, against labels: from images to the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import msgspec
import numpy as np

from promptray.calibrate.evaluate import Progress, Settings, evaluate
from promptray.calibrate.evaluation_report import (
    EvaluationReport,
    LabelsRef,
    Protocol,
    RefusedImage,
    ScoresRef,
)
from promptray.calibrate.pointing_game import PointingGame, PointingReport
from promptray.calibrate.published import Published
from promptray.calibrate.score_images import Missing, score_images
from promptray.calibrate.tables.csv_file import TableError
from promptray.calibrate.tables.image_folder import ImageFolder
from promptray.calibrate.tables.labels import LabelledImage, Labels
from promptray.calibrate.tables.scores import Kind, ScoreTable
from promptray.runtime.bundle.manifest import ALTERNATIVES
from promptray.runtime.errors import ScoringError
from promptray.runtime.heads import require_head
from promptray.runtime.result import BundleRef, Result
from promptray.runtime.scorer import Scorer
from promptray.runtime.version import VERSION

Choice = Kind | Literal["auto"]

_POOLED = (
    "The images come from several sources. What differs between sources (age, machine, care) differs with "
    "the findings, too, so numbers over all sources may measure the source: read those of each source."
)
UNCLUSTERED = (
    "No column patient_id: every image counts as a patient of its own, so intervals may be too narrow."
)


def evaluate_scorer(
    scorer: Scorer,
    labels: Labels,
    folder: ImageFolder,
    settings: Settings,
    *,
    head: str | None = None,
    score: Choice = "auto",
    modality: str | None = None,
    game: PointingGame | None = None,
    published: Published | None = None,
    progress: Progress | None = None,
) -> tuple[EvaluationReport, ScoreTable]:
    """Score the labelled images and measure the scores.

    Parameters
    ----------
    scorer : Scorer
    labels : Labels
        Located in the folder (:func:`promptray.calibrate.score_images.locate`).
    folder : ImageFolder
    settings : Settings
        Where the bundle's findings are alternatives they are also measured as classes, and where their
        order is a scale as its steps.
    head : str, optional
        Which one is measured, where the bundle has several.
    score : {"auto", "logit", "softmax", "probability"}
        What to rank images by. ``auto``: softmax where findings are alternatives, otherwise the logit.
    modality : str, optional
        Of images that state none and whose row states none.
    game : PointingGame, optional
        Played along the way.
    published : Published, optional
    progress : callable, optional

    Returns
    -------
    EvaluationReport, ScoreTable

    Raises
    ------
    TableError
        ``table.finding`` if there is no score of the kind asked for.
    ScoringError
        ``score.head``; ``score.map-unavailable`` if a pointing game is wanted of a head without map.
    """
    manifest = scorer.bundle.manifest
    measured = require_head(manifest, head)
    if game and measured.map is None:
        what = "this head has no explanation map"
        raise ScoringError("score.map-unavailable", what, artefact=measured.name)
    patient = dict(zip((image.name for image in labels.images), labels.patients.tolist(), strict=True))

    def play(image: LabelledImage, result: Result) -> None:
        if game:
            game.play(image.name, patient[image.name], result, measured.name)

    table = score_images(
        scorer,
        labels.images,
        folder,
        head=measured.name,
        modality=modality,
        progress=progress,
        visit=play if game else None,
    )
    origin = ScoresRef(
        name=manifest.name,
        bundle=BundleRef(
            name=manifest.name,
            family=manifest.family,
            sha256=scorer.bundle.hash,
            site_revision=scorer.prompts.state.site_revision,
            model=manifest.model,
        ),
        head=measured.name,
        backend=scorer.backend,
    )
    relation = measured.relation
    settings = replace(
        settings,
        alternatives=relation in ALTERNATIVES,
        ordinal=settings.ordinal or relation == "ordinal",
    )
    report = _report(origin, table, labels, settings, score, published, progress)
    unlabelled = set(folder.files) - {image.file for image in labels.images}
    played = game.report() if game else None
    return _with(report, unlabelled_files=len(unlabelled), pointing_game=played), table


def evaluate_table(
    table: ScoreTable,
    labels: Labels,
    settings: Settings,
    *,
    score: Choice = "auto",
    missing: Missing = "error",
    published: Published | None = None,
    progress: Progress | None = None,
) -> EvaluationReport:
    """Measure scores that were written earlier, here or elsewhere.

    Parameters
    ----------
    table : ScoreTable
        Its images are named as in the labels.
    labels : Labels
    missing : {"error", "count"}
        Whether an image with labels and without scores is an error, or counted as refused.
    settings, score, published, progress
        As for :func:`evaluate_scorer`.

    Raises
    ------
    TableError
        ``table.image``, ``table.finding``.
    """
    row_of = {name: row for row, name in enumerate(table.names)}
    names = [image.name for image in labels.images]
    absent = [image.place for image in labels.images if image.name not in row_of]
    if absent and (missing == "error" or len(absent) == len(names)):
        raise TableError(
            "table.image",
            f"{labels.table} names images that have no scores",
            artefact=f"{labels.table}, {', '.join(absent[:3])}" + (" ..." if len(absent) > 3 else ""),
            expected=f"{len(names)} images in {table.origin}",
            found=f"{len(absent)} of them are absent",
            cure="name images alike in both tables; --missing count evaluates those that are there",
        )
    rows = [row_of.get(name, -1) for name in names]
    gone = np.array(rows) < 0
    aligned = replace(
        table,
        names=names,
        values={kind: np.where(gone[:, None], np.nan, values[rows]) for kind, values in table.values.items()},
        refused=dict.fromkeys(absent, "table.image"),
    )
    origin = ScoresRef(name=table.origin, bundle=None, head=None, backend=None)
    return _report(origin, aligned, labels, settings, score, published, progress)


def _report(
    origin: ScoresRef,
    table: ScoreTable,
    labels: Labels,
    settings: Settings,
    score: Choice,
    published: Published | None,
    progress: Progress | None,
) -> EvaluationReport:
    kind = _kind(table, score)
    groups = evaluate(
        labels, table.keys, table.values[kind], table.flags, settings, published=published, progress=progress
    )
    notes = [_POOLED] if len(groups) > 1 else []
    return EvaluationReport(
        schema="promptray-evaluation",
        schema_version=1,
        software=f"promptray {VERSION}",
        scores=origin,
        labels=LabelsRef(
            name=labels.table,
            sha256=labels.sha256,
            rows=len(labels.images),
            unused_columns=list(labels.unused),
            findings_without_labels=[key for key in table.keys if key not in labels.keys],
        ),
        protocol=Protocol(
            score=kind,
            uncertain=settings.uncertain,
            clustered_by="patient_id" if labels.clustered else "image",
            draws=settings.draws,
            seed=settings.seed,
            confidence=settings.confidence,
            min_patients=settings.min_patients,
            tail_positives=settings.tail_positives,
            head_percentile=settings.head_percentile,
            published=published.name if published else None,
        ),
        scored=groups[0].images,
        refused=RefusedImage.each(table.refused),
        unlabelled_files=None,
        groups=groups,
        pointing_game=None,
        notes=notes if labels.clustered else [*notes, UNCLUSTERED],
    )


def _with(
    report: EvaluationReport, *, unlabelled_files: int, pointing_game: PointingReport | None
) -> EvaluationReport:
    return msgspec.structs.replace(report, unlabelled_files=unlabelled_files, pointing_game=pointing_game)


def _kind(table: ScoreTable, choice: Choice) -> Kind:
    order: Sequence[Kind] = ("softmax", "logit", "score", "probability") if choice == "auto" else (choice,)
    for kind in order:
        if kind in table.values:
            return kind
    raise TableError(
        "table.finding",
        f"there is no score of the kind {choice}",
        artefact=table.origin,
        expected=f"one of {', '.join(table.values)}",
        cure="correct --score",
    )
