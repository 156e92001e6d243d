"""The report as rows for people: the same on the terminal and in HTML."""

from __future__ import annotations

from typing import NamedTuple

from promptray.calibrate.evaluation_report import (
    Estimate,
    EvaluationReport,
    FindingReport,
    GroupReport,
    MeanReport,
)


class Section(NamedTuple):
    """One table with its title."""

    title: str
    columns: list[str]
    rows: list[list[str]]


def sections(report: EvaluationReport) -> list[Section]:
    """Return every table of a report."""
    found = []
    for group in report.groups:
        name = "all images" if group.source is None else f"source {group.source}"
        found.append(_findings(report, group, name))
        if group.classes:
            found.append(_classes(group, name))
    if report.pointing_game:
        found.append(_pointing(report))
    if report.refused:
        rows = [[image.image, image.code] for image in report.refused]
        found.append(Section(f"No score: {len(rows)} images", ["image", "code"], rows))
    return found


def _findings(report: EvaluationReport, group: GroupReport, name: str) -> Section:
    compared = report.protocol.published is not None
    columns = ["finding", "part", "images", "present", "AUROC", "AUPRC", "F1 (at)"]
    rows = [[*_finding(finding), *_published(finding, compared)] for finding in group.findings]
    means = group.means if len(group.means) > 2 else group.means[:1]  # one part alone says nothing new
    rows += [[*_mean(mean), *_published(mean, compared)] for mean in means if mean.auroc]
    share = f"{report.protocol.confidence:.0%}"
    title = (
        f"{report.scores.name}, {name}: {group.images} images of {group.patients} "
        f"{'patients' if report.protocol.clustered_by == 'patient_id' else 'patients (one per image)'}. "
        f"{share} intervals of {report.protocol.draws} draws of patients. Ranked by {report.protocol.score}"
    )
    return Section(title, [*columns, *(["published AUROC"] if compared else [])], rows)


def _finding(finding: FindingReport) -> list[str]:
    facts = [finding.key, finding.part, str(finding.images), str(finding.positives)]
    if finding.status == "inconclusive":
        return [*facts, f"inconclusive: {finding.reason}", "", ""]
    assert finding.f1 is not None  # noqa: S101 - an evaluated finding has every number
    at = "stored" if finding.f1.threshold is None else f"best here, {finding.f1.threshold:.3g}"
    return [*facts, _said(finding.auroc), _said(finding.auprc), f"{finding.f1.value:.3f} ({at})"]


def _mean(mean: MeanReport) -> list[str]:
    what = "mean" if mean.part == "all" else f"mean of {mean.part}"
    return [f"{what} ({len(mean.findings)})", "", "", "", _said(mean.auroc), _said(mean.auprc), ""]


def _published(row: FindingReport | MeanReport, compared: bool) -> list[str]:
    if not compared:
        return []
    return ["" if row.published_auroc is None else f"{row.published_auroc:.3f}"]


def _classes(group: GroupReport, name: str) -> Section:
    classes = group.classes
    assert classes is not None  # noqa: S101 - the caller looked
    title = f"The highest score as the prediction, {name}: accuracy {_said(classes.accuracy)}"
    if classes.quadratic_kappa:
        title += f"; quadratic-weighted kappa {_said(classes.quadratic_kappa)}"
    if classes.unusable:
        title += f"; {classes.unusable} images left out, whose labels do not name exactly one"
    rows = [
        [key, *(str(count) for count in row)]
        for key, row in zip(classes.keys, classes.confusion, strict=True)
    ]
    return Section(title, ["labelled as", *(f"predicted {key}" for key in classes.keys)], rows)


def _pointing(report: EvaluationReport) -> Section:
    game = report.pointing_game
    assert game is not None  # noqa: S101 - the caller looked
    rows = [
        [f.key, str(f.images), str(f.hits), f"{f.rate:.3f} ({f.low:.3f} to {f.high:.3f})", f"{f.chance:.3f}"]
        for f in game.findings
    ]
    if game.macro_rate is not None:
        rows.append(["mean", "", "", f"{game.macro_rate:.3f}", ""])
    title = f"Pointing game, {game.boxes}: is the maximum of the map in a box?"
    if game.without_score:
        title += f" {game.without_score} images with boxes were not scored."
    return Section(title, ["finding", "images", "hits", "rate", "by chance"], rows)


def _said(estimate: Estimate | None) -> str:
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:.3f} (no interval)"
    return f"{estimate.value:.3f} ({estimate.low:.3f} to {estimate.high:.3f})"
