"""Calibrate the findings of one head on a site's labelled images: from images to what the site stores."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from promptray.calibrate.evaluation import UNCLUSTERED
from promptray.calibrate.evaluation_report import LabelsRef, RefusedImage
from promptray.calibrate.probability.calibrate import calibrate, require_enough_to_fit
from promptray.calibrate.probability.operating_point import operating_point, require_enough_to_choose
from promptray.calibrate.probability.report import CalibratedFinding, Refusal, SiteReport, Wanted
from promptray.calibrate.probability.sample import Sample, sample
from promptray.calibrate.probability.site_images import SiteImages, score_site
from promptray.calibrate.tables.csv_file import TableError
from promptray.calibrate.tables.image_folder import ImageFolder
from promptray.calibrate.tables.labels import Labels, Uncertain, known
from promptray.runtime.bundle.manifest import ALTERNATIVES, Head
from promptray.runtime.bundle.words import quoted
from promptray.runtime.calibration import Method
from promptray.runtime.errors import BuildError
from promptray.runtime.heads import require_head
from promptray.runtime.operating_point import Rule
from promptray.runtime.result import BundleRef
from promptray.runtime.scorer import Scorer
from promptray.runtime.site_calibration import Basis, CalibrationFile, SiteCalibration
from promptray.runtime.version import VERSION


@dataclass(frozen=True)
class Settings:
    """What to fit, and how to measure it.

    Attributes
    ----------
    method : {"platt", "temperature", "isotonic"}
    rule : {"sensitivity-first", "specificity-first"} or None
        How the threshold is chosen; None for no threshold.
    target : float
        The share that it is to keep.
    uncertain : {"ignore", "present", "absent"}
        What a label of -1 counts as.
    draws, seed : int
        Of the bootstrap intervals.
    """

    method: Method = "platt"
    rule: Rule | None = "sensitivity-first"
    target: float = 0.95
    uncertain: Uncertain = "ignore"
    draws: int = 1000
    seed: int = 0


def require_calibratable(head: Head) -> None:
    """Refuse a head whose findings are alternatives.

    A curve for each would give probabilities that do not add up to 1, and one temperature for all of them
    gives shares of a softmax, not the probability of a finding.

    Raises
    ------
    BuildError
        ``calibration.alternatives``.
    """
    if head.relation in ALTERNATIVES:
        raise BuildError(
            "calibration.alternatives",
            "one of these findings is always true, so a curve for each would contradict the others",
            artefact=head.name,
            expected="a head whose findings are independent, or asked against their negatives",
            found=head.relation,
            cure="read `softmax`, which compares them; `promptray adapt` makes a head of own classes",
        )


def calibrate_scorer(
    scorer: Scorer,
    labels: Labels,
    folder: ImageFolder,
    settings: Settings,
    *,
    head: str | None = None,
    findings: Collection[str] = (),
    modality: str | None = None,
    progress: Callable[[str, str, float], None] | None = None,
) -> tuple[SiteReport, list[CalibrationFile]]:
    """Score the labelled images and calibrate every labelled finding; store nothing.

    A finding that cannot be calibrated is refused alone, and its reason is in the report. Findings with too
    few patients are known before an image is scored; where there are no others, none is.

    Parameters
    ----------
    scorer : Scorer
    labels : Labels
        Located in the folder (:func:`promptray.calibrate.score_images.locate`).
    folder : ImageFolder
    settings : Settings
    head : str, optional
        Which one, where the bundle has several.
    findings : collection of str
        Only these; all that have labels by default.
    modality : str, optional
        Of images that state none and whose row states none.
    progress : callable, optional
        Called with (stage, message, fraction).

    Returns
    -------
    SiteReport
    list of CalibrationFile
        Of the findings that were calibrated, for
        :func:`promptray.runtime.site_calibration.keep_calibrations`.

    Raises
    ------
    BuildError
        ``calibration.alternatives``.
    TableError
        ``table.finding`` for one of `findings` that has no labels.
    ScoringError
        ``score.head``.
    """
    own = require_head(scorer.bundle.manifest, head)
    require_calibratable(own)
    keys = _keys(labels, findings)
    refused = _too_few(labels, keys, settings)
    entries = {key: scorer.prompts.state.find((own.name, key)).entry.fingerprint for key in keys}
    chosen = labels if len(refused) < len(keys) else labels.select([])
    images = score_site(scorer, chosen, folder, head=own.name, modality=modality, progress=progress)
    found, made = [], []
    for number, key in enumerate(keys):
        if progress:
            progress("fit", key, number / len(keys))
        fitted = _fitted(images, key, settings, scorer.bundle.hash, refused.get(key))
        found.append(fitted)
        if fitted.calibration is not None:
            made.append(_file(own, _basis(scorer, images, entries[key], key, settings), fitted))
    return _report(scorer, own, labels, settings, images, found), made


def stale_notes(report: SiteReport, stored: Mapping[tuple[str, str], SiteCalibration]) -> list[str]:
    """Return a note for each finding that was refused and whose earlier calibration stays in force.

    Parameters
    ----------
    report : SiteReport
    stored : mapping of (head, key) to SiteCalibration
        From :func:`promptray.runtime.site_calibration.site_calibrations`.
    """
    refused = [each.key for each in report.findings if each.refused is not None]
    earlier = {key: stored[report.head, key] for key in refused if (report.head, key) in stored}
    return [
        f"{key} keeps its calibration of {each.content.calibration.date}; "
        f"`promptray calibrate BUNDLE --remove {quoted(key)}` takes it away."
        for key, each in earlier.items()
    ]


def _keys(labels: Labels, findings: Collection[str]) -> list[str]:
    for key in findings:
        if key not in labels.keys:
            raise TableError(
                "table.finding",
                "a finding that is to be calibrated has no labels",
                artefact=labels.table,
                expected=f"a column named {key}",
                found=f"labels of {', '.join(labels.keys)}",
                cure="rename a column, or say --column COLUMN=KEY",
            )
    return [key for key in labels.keys if not findings or key in findings]


def _too_few(labels: Labels, keys: Sequence[str], settings: Settings) -> dict[str, BuildError]:
    """Return the findings that have too few patients even if every image gets a score."""
    refused = {}
    for key in keys:
        counted, present = known(labels.values[:, labels.keys.index(key)], settings.uncertain)
        unscored = sample(key, np.zeros(counted.sum()), present[counted], labels.patients[counted])
        try:
            _require_enough(unscored, settings)
        except BuildError as error:
            refused[key] = error
    return refused


def _require_enough(found: Sample, settings: Settings) -> None:
    require_enough_to_fit(settings.method, found)
    if settings.rule is not None:
        require_enough_to_choose(settings.rule, found, target=settings.target)


def _fitted(
    images: SiteImages, key: str, settings: Settings, bundle: str, refused: BuildError | None
) -> CalibratedFinding:
    """Fit one finding, or say why not; `refused` if that is known already."""
    try:
        if refused is not None:
            raise refused
        return _fit(images.sample(key, settings.uncertain), settings, bundle)
    except BuildError as error:
        return CalibratedFinding(key=key, refused=Refusal.of(error), calibration=None, operating_point=None)


def _fit(found: Sample, settings: Settings, bundle: str) -> CalibratedFinding:
    _require_enough(found, settings)
    draws, seed = settings.draws, settings.seed
    point = None
    if settings.rule is not None:
        point = operating_point(
            settings.rule, found, bundle=bundle, target=settings.target, draws=draws, seed=seed
        )
    return CalibratedFinding(
        key=found.finding,
        refused=None,
        calibration=calibrate(settings.method, found, bundle=bundle, draws=draws, seed=seed),
        operating_point=point,
    )


def _basis(scorer: Scorer, images: SiteImages, entry: str, key: str, settings: Settings) -> Basis:
    return Basis(
        entry=entry,
        backend=scorer.backend.name,
        precision=scorer.backend.precision,
        gated_as=scorer.backend.gated_as,
        strict=scorer.strict,
        labels=images.labels.sha256,
        notices=images.notices_of(images.rows(key, settings.uncertain)),
    )


def _file(head: Head, basis: Basis, fitted: CalibratedFinding) -> CalibrationFile:
    assert fitted.calibration is not None  # noqa: S101 - it was just fitted
    return CalibrationFile(
        format="promptray-calibration",
        format_version=1,
        head=head.name,
        basis=basis,
        calibration=fitted.calibration.calibration,
        operating_point=fitted.operating_point,
    )


def _report(
    scorer: Scorer,
    head: Head,
    labels: Labels,
    settings: Settings,
    images: SiteImages,
    found: list[CalibratedFinding],
) -> SiteReport:
    manifest = scorer.bundle.manifest
    return SiteReport(
        schema="promptray-calibration-report",
        schema_version=1,
        software=f"promptray {VERSION}",
        bundle=BundleRef(
            name=manifest.name,
            family=manifest.family,
            sha256=scorer.bundle.hash,
            site_revision=scorer.prompts.state.site_revision,
            model=manifest.model,
        ),
        head=head.name,
        backend=scorer.backend,
        strict=scorer.strict,
        labels=LabelsRef(
            name=labels.table,
            sha256=labels.sha256,
            rows=len(labels.images),
            unused_columns=list(labels.unused),
            findings_without_labels=[
                finding.key for finding in scorer.prompts.of_head(head.name) if finding.key not in labels.keys
            ],
        ),
        wanted=Wanted(
            method=settings.method,
            rule=settings.rule,
            target=None if settings.rule is None else settings.target,
            uncertain=settings.uncertain,
            clustered_by="patient_id" if labels.clustered else "image",
            draws=settings.draws,
            seed=settings.seed,
        ),
        scored=len(images.table.names) - len(images.table.refused),
        united=images.united,
        refused=RefusedImage.each(images.table.refused),
        findings=found,
        stored=False,
        notes=_notes(images, found),
    )


def _notes(images: SiteImages, found: list[CalibratedFinding]) -> list[str]:
    notes = [] if images.labels.clustered else [UNCLUSTERED]
    poor = [each.key for each in found if each.calibration is not None and each.calibration.off]
    if poor:
        notes.append(
            f"The probabilities of {', '.join(poor)} are further off than chance explains (compare ECE): "
            "look at the diagram, and try another method."
        )
    if images.united:
        what = "patients" if images.labels.clustered else "images"
        notes.append(f"{images.united} {what} count as one patient with others: they share a picture.")
    return notes
