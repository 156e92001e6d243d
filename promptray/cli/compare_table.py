"""A comparison as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from promptray.cli.output import print_table

if TYPE_CHECKING:
    from promptray.calibrate.comparison_report import Bound, ComparisonReport, FindingComparison, SideRef
    from promptray.calibrate.evaluation_report import Estimate


def print_comparison(report: ComparisonReport) -> None:
    """Print the findings, the bounds, and what is on one side only."""
    first, second = report.first.name, report.second.name
    labelled = any(finding.auroc for finding in report.findings)
    columns = ["finding", "images", "Spearman", "max Δ", "mean |Δ|", "flips"]
    columns += ["AUROC A", "AUROC B", "loss"] if labelled else []
    print_table(
        f"A {first}, B {second}: {report.images} images of {report.patients} "
        f"{'patients' if report.clustered_by == 'patient_id' else 'patients (one per image)'}",
        columns,
        [_row(finding, labelled) for finding in report.findings],
        right=tuple(range(1, len(columns))),
    )
    if report.mean_auroc_loss:
        click.echo(f"Loss of the mean AUROC, A less B: {_said(report.mean_auroc_loss, '+.4f')}")
    each_end = (1 + report.confidence) / 2
    click.echo(f"Each end of an interval is a one-sided {each_end:.3g} limit.")
    if report.bounds:
        rows = [_bound(bound) for bound in report.bounds]
        print_table("Bounds", ["bound", "stated", "measured", "worst finding", "verdict"], rows)
    if any(finding.flips.chosen != "stored" for finding in report.findings):
        click.echo(
            "Flips: of findings without a threshold stored with A they are counted at the score of A that "
            f"{report.reference_rate:.0%} of the images reach."
        )
    for letter, side in (("A", report.first), ("B", report.second)):
        _print_side(letter, side)


def _row(finding: FindingComparison, labelled: bool) -> list[str]:
    flips = finding.flips
    row = [
        finding.key,
        str(finding.images),
        _said(finding.spearman, ".4f") if finding.spearman else "not defined",
        f"{finding.max_delta:.3g}",
        f"{finding.mean_delta:.3g}",
        f"{flips.flips} ({flips.low:.1%} to {flips.high:.1%})",
    ]
    if labelled and finding.auroc:
        auroc = finding.auroc
        row += [f"{auroc.first:.3f}", f"{auroc.second:.3f}", _said(auroc.loss, "+.4f")]
    elif labelled:
        row += [finding.reason or "", "", ""]
    return row


def _bound(bound: Bound) -> list[str]:
    measured = "not measured" if bound.value is None else f"{bound.value:.4g}"
    if bound.low is not None and bound.high is not None and bound.low < bound.high:
        measured += f" ({bound.low:.4g} to {bound.high:.4g})"
    verdict = "inconclusive, which is not passed" if bound.status == "inconclusive" else bound.status
    return [bound.name, f"{bound.bound:g}", measured, bound.finding or "mean", verdict]


def _print_side(letter: str, side: SideRef) -> None:
    if side.only_here:
        click.echo(f"Findings of {letter} only: {', '.join(side.only_here)}.")
    if side.images_only_here:
        click.echo(f"Images with scores of {letter} only: {side.images_only_here}.")
    for image in side.refused:
        click.echo(f"{image.image}: no score of {letter} [{image.code}]", err=True)


def _said(estimate: Estimate, form: str) -> str:
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:{form}} (no interval)"
    return f"{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"
