"""Calibrate the findings of one head on a site's labelled images: from images to what the site stores."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np

from promptray.calibrate.evaluation import UNCLUSTERED
from promptray.calibrate.evaluation_report import LabelsRef, RefusedImage
from promptray.calibrate.probability.calibrate import calibrate, require_enough_to_fit
from promptray.calibrate.probability.operating_point import operating_point, require_enough_to_choose
from promptray.calibrate.probability.report import CalibratedFinding, Refusal, SiteReport, Wanted
from promptray.calibrate.probability.sample import Sample, sample
from promptray.calibrate.score_images import score_images
from promptray.calibrate.tables.image_folder import ImageFolder
from promptray.calibrate.tables.labels import LabelledImage, Labels, Uncertain, known
from promptray.calibrate.tables.scores import ScoreTable
from promptray.runtime.bundle.manifest import ALTERNATIVES, Head
from promptray.runtime.calibration import Method
from promptray.runtime.errors import BuildError
from promptray.runtime.heads import require_head
from promptray.runtime.operating_point import Rule
from promptray.runtime.result import BundleRef, Result
from promptray.runtime.scorer import Scorer
from promptray.runtime.site_calibration import Basis, CalibrationFile
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
    ScoringError
        ``score.head``.
    """
    own = require_head(scorer.bundle.manifest, head)
    require_calibratable(own)
    keys = [key for key in labels.keys if not findings or key in findings]
    refused = _too_few(labels, keys, settings)
    state = scorer.prompts.state
    notices: list[frozenset[str]] = [frozenset()] * len(labels.images)
    row_of = {image.name: row for row, image in enumerate(labels.images)}
    of_prompts = {each.code for each in state.notices}

    def note(image: LabelledImage, result: Result) -> None:
        notices[row_of[image.name]] = frozenset(each.code for each in result.notices) - of_prompts

    wanted = labels.images if len(refused) < len(keys) else []
    table = score_images(
        scorer, wanted, folder, head=own.name, modality=modality, progress=progress, visit=note
    )
    fitted, made = [], []
    for number, key in enumerate(keys):
        if progress:
            progress("fit", key, number / len(keys))
        if key not in refused:
            images = _Images(labels, table, key, settings)
            try:
                fitted.append(_fit(images, settings, scorer.bundle.hash))
            except BuildError as error:
                refused[key] = error
            else:
                basis = Basis(
                    entry=state.find((own.name, key)).entry.fingerprint,
                    backend=scorer.backend.name,
                    precision=scorer.backend.precision,
                    gated_as=scorer.backend.gated_as,
                    strict=scorer.strict,
                    labels=labels.sha256,
                    notices=dict(Counter(code for row in images.rows for code in sorted(notices[row]))),
                )
                made.append(_file(own, basis, fitted[-1]))
        if key in refused:
            fitted.append(
                CalibratedFinding(
                    key=key, refused=Refusal.of(refused[key]), calibration=None, operating_point=None
                )
            )
    return _report(scorer, own, labels, settings, table, fitted), made


class _Images:
    """The scored images that have a label of one finding."""

    def __init__(self, labels: Labels, table: ScoreTable, key: str, settings: Settings) -> None:
        logits = table.values["logit"][:, table.keys.index(key)]
        counted, present = known(labels.values[:, labels.keys.index(key)], settings.uncertain)
        self.rows = np.flatnonzero(counted & ~np.isnan(logits))
        self.sample = sample(key, logits[self.rows], present[self.rows], labels.patients[self.rows])


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


def _fit(images: _Images, settings: Settings, bundle: str) -> CalibratedFinding:
    found, draws, seed = images.sample, settings.draws, settings.seed
    _require_enough(found, settings)
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
    table: ScoreTable,
    fitted: list[CalibratedFinding],
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
        scored=len(table.names) - len(table.refused),
        refused=[RefusedImage(file=name, code=code) for name, code in table.refused.items()],
        findings=fitted,
        stored=False,
        notes=[] if labels.clustered else [UNCLUSTERED],
    )
