"""``promptray check``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from promptray.calibrate.reports.compare import Comparison, compare, read_reference, read_report, to_json
from promptray.cli.finite_range import FiniteRange
from promptray.cli.output import (
    bundle_argument,
    head_option,
    json_option,
    no_site_option,
    print_json,
    print_table,
    site_choice,
    site_option,
)
from promptray.cli.threads import ScoringCommand
from promptray.runtime.finding_names import ByFinding, shown
from promptray.runtime.heads import require_head
from promptray.runtime.scorer import Scorer

_DISAGREE = ("possible miss", "not confirmed")
_NO_SIDE = (
    "No finding could be compared: a raw score has no side. Give --reference with scores of your own images, "
    "or store thresholds."
)


@click.command("check", cls=ScoringCommand)
@bundle_argument
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--report", required=True, type=click.Path(path_type=Path), help="Text of the image's report.")
@click.option(
    "--reference",
    type=click.Path(path_type=Path),
    help="Scores of other images by this bundle: what `promptray score --json` wrote.",
)
@click.option(
    "--above",
    type=FiniteRange(0.5, 1.0, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="A score above this share of the reference is high, one below it from the other end is low.",
)
@click.option("--modality", help="Modality of an image that states none (PNG, JPEG), for example CR or DX.")
@click.option("--frame", type=click.IntRange(1), help="Frame of a multi-frame object, counted from 1.")
@head_option
@site_option
@no_site_option
@json_option
def command(bundle: str, image: Path, report: Path, as_json: bool, **options: Any) -> None:
    """List where the report of IMAGE and its scores disagree: a second look, not a diagnosis.

    A score counts as high or low by the finding's threshold, or else by its rank among --reference. The
    report is read by rules and can be misread. Its text is neither printed nor logged; only our own terms
    that matched are.

    \b
    Examples:
      promptray score chest.bundle normals/ --json > reference.jsonl
      promptray check chest.bundle film.dcm --report report.txt --reference reference.jsonl
    """
    triplets = read_report(report)
    declared = {name: options[name] for name in ("modality", "frame") if options[name] is not None}
    with Scorer.open(bundle, site=site_choice(options["site"], options["no_site"])) as scorer:
        reference_file, above = options["reference"], options["above"]
        reference = read_reference(reference_file, scorer.bundle.hash, above=above) if reference_file else {}
        if options["head"]:
            require_head(scorer.bundle.manifest, options["head"])
        result = scorer.score(image, **declared)
    scored = [each for each in result.document.findings if options["head"] in (None, each.head)]
    findings = compare(triplets, scored, reference, above=above)
    if as_json:
        print_json(
            {
                "schema": "promptray-check",
                "schema_version": 1,
                "file": result.name,
                "bundle": result.to_json()["bundle"],
                "above": above,
                "findings": [to_json(each) for each in findings],
                "notices": result.to_json()["notices"],
            }
        )
        return
    _print(findings)


def _print(findings: list[Comparison]) -> None:
    names = _names(findings)
    compared = [each for each in findings if each.verdict != "not compared"]
    disagree = [each for each in findings if each.verdict in _DISAGREE]
    if disagree:
        rows = [
            [names[each.head, each.key], each.verdict, each.stated, f"{each.logit:.3f}", _ground(each)]
            for each in disagree
        ]
        columns = ["finding", "verdict", "report", "score", "by"]
        print_table("Report and scores disagree", columns, rows, right=(3,))
    elif compared:
        click.echo(f"No disagreement in {len(compared)} findings that could be compared.")
    left_out = [names[each.head, each.key] for each in findings if each.verdict == "not compared"]
    if not compared:
        click.echo(_NO_SIDE, err=True)
    elif left_out:
        click.echo(f"Not compared: {', '.join(left_out)}.", err=True)


def _names(findings: list[Comparison]) -> dict[tuple[str, str], str]:
    """Return what people call each finding."""
    named = ByFinding((each.head, each.key, each) for each in findings)
    return {(each.head, each.key): shown(name) for name, each in named.items()}


def _ground(comparison: Comparison) -> str:
    if comparison.by == "threshold":
        return "threshold"
    return f"above {comparison.rank} of {comparison.of} reference images"
