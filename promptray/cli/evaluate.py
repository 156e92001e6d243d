"""``promptray evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptray.cli.label_options import label_options, read_label_options, settings_of
from promptray.cli.output import (
    head_option,
    json_option,
    no_site_option,
    prepare_option,
    print_json,
    print_table,
    progress,
    site_choice,
    site_option,
)
from promptray.cli.threads import ScoringCommand, threads_option

if TYPE_CHECKING:
    from promptray.calibrate.evaluation_report import EvaluationReport
    from promptray.calibrate.tables.scores import ScoreTable

_PATH = click.Path(path_type=Path)
_REPORT, _SCORES, _PAGE = "evaluation.json", "scores.csv", "evaluation.html"


@click.command("evaluate", cls=ScoringCommand)
@click.argument("scores", metavar="BUNDLE", type=_PATH)
@click.option("--labels", type=_PATH, required=True, help="CSV: file, a column per finding, patient_id ...")
@click.option("--images", type=_PATH, help="Folder of the images that the labels name.")
@label_options
@click.option(
    "--score",
    type=click.Choice(["auto", "logit", "softmax", "probability", "score"]),
    default="auto",
    show_default=True,
    help="What ranks the images; auto: softmax between alternatives, otherwise the logit.",
)
@click.option(
    "--ordinal",
    is_flag=True,
    help="The findings are the steps of a scale: weighted kappa. A bundle whose findings are says so itself.",
)
@click.option("--boxes", type=_PATH, help="CSV: file, finding, x, y, w, h. Plays the pointing game.")
@click.option("--published", metavar="NAME", help="Print a published table beside, e.g. carzero-chestxray14.")
@click.option("--modality", help="Modality of images that state none (PNG, JPEG), for example DX.")
@click.option("--strict", is_flag=True, help="Refuse images whose tags are absent, instead of noting it.")
@click.option("--backend", default="auto", show_default=True, help="Backend; the report says which ran.")
@prepare_option
@threads_option
@click.option("-o", "--output", type=_PATH, help=f"New folder for {_REPORT} and {_SCORES}.")
@click.option("--html", is_flag=True, help=f"Write {_PAGE} as well.")
@head_option
@site_option
@no_site_option
@json_option
def command(
    scores: Path,
    labels: Path,
    images: Path | None,
    output: Path | None,
    html: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Measure a bundle on labelled images: AUROC, AUPRC and F1 per finding, with intervals over patients.

    Instead of a bundle, a CSV of scores (file, finding, score) can be measured. Images that are refused get
    no score: they are counted, listed, and make the exit code 1.

    \b
    Examples:
      promptray evaluate chest.bundle --images films --labels labels.csv --modality DX -o report --html
      promptray evaluate report/scores.csv --labels labels.csv --uncertain present
    """
    from promptray.calibrate.evaluation_html import evaluation_html
    from promptray.calibrate.evaluation_report import to_json
    from promptray.calibrate.output_folder import OutputFolder

    if html and not output:
        raise click.UsageError("--html needs -o, the folder to write to")
    # A folder that cannot be written to is refused before hours of scoring, not after them.
    names = [_REPORT, _SCORES, *([_PAGE] if html else [])]
    target = OutputFolder(output, names) if output else None
    with progress("evaluating") as bar:
        if scores.is_file():
            report, table = _evaluate_table(scores, labels, images, options, bar)
        else:
            report, table = _evaluate_bundle(scores, labels, images, options, bar)
    if target:
        from promptray.calibrate.tables.scores import write_scores

        page = {_PAGE: evaluation_html(report).encode()} if html else {}
        target.write({_REPORT: to_json(report), _SCORES: write_scores(table), **page})
    _print(report, as_json)
    return 1 if report.refused else 0


def _evaluate_table(
    scores: Path, labels: Path, images: Path | None, options: dict[str, Any], bar: Any
) -> tuple[EvaluationReport, ScoreTable]:
    from promptray.calibrate.evaluation import evaluate_table
    from promptray.calibrate.published import read_published
    from promptray.calibrate.tables.scores import read_scores

    if images or options["boxes"] or options["head"]:
        raise click.UsageError("--images, --boxes and --head belong to a bundle; a CSV holds its scores")
    published = read_published(options["published"]) if options["published"] else None
    table = read_scores(scores)
    report = evaluate_table(
        table,
        read_label_options(labels, table.keys, options),
        settings_of(options, ordinal=options["ordinal"]),
        score=options["score"],
        missing=options["missing"],
        published=published,
        progress=bar,
    )
    return report, table


def _evaluate_bundle(
    bundle: Path, labels: Path, images: Path | None, options: dict[str, Any], bar: Any
) -> tuple[EvaluationReport, ScoreTable]:
    from promptray.calibrate.evaluation import evaluate_scorer
    from promptray.calibrate.pointing_game import PointingGame
    from promptray.calibrate.published import read_published
    from promptray.calibrate.score_images import locate
    from promptray.calibrate.tables.boxes import read_boxes
    from promptray.calibrate.tables.image_folder import ImageFolder
    from promptray.runtime.heads import require_head
    from promptray.runtime.scorer import Scorer

    if not images:
        raise click.UsageError("a bundle needs --images, the folder of the images")
    published = read_published(options["published"]) if options["published"] else None
    with Scorer.open(
        bundle,
        backend=options["backend"],
        site=site_choice(options["site"], options["no_site"]),
        threads=options["threads"],
        strict=options["strict"],
        prepare=options["prepare"],
    ) as scorer:
        head = require_head(scorer.bundle.manifest, options["head"]).name
        keys = [finding.key for finding in scorer.prompts.of_head(head)]
        folder = ImageFolder(images)
        located = locate(read_label_options(labels, keys, options), folder, options["missing"])
        game = None
        if options["boxes"]:
            boxes = read_boxes(options["boxes"], keys)
            places = {file: f"image {number}" for number, file in enumerate(boxes, 1)}
            folder.require(places, options["boxes"].name)
            found = {folder.resolve(file) or file: of for file, of in boxes.items()}
            game = PointingGame(options["boxes"].name, found)
        return evaluate_scorer(
            scorer,
            located,
            folder,
            settings_of(options, ordinal=options["ordinal"]),
            head=head,
            score=options["score"],
            modality=options["modality"],
            game=game,
            published=published,
            progress=bar,
        )


def _print(report: EvaluationReport, as_json: bool) -> None:
    import msgspec

    from promptray.calibrate.evaluation_table import sections

    if as_json:
        print_json(msgspec.to_builtins(report))
    else:
        for section in sections(report):
            print_table(section.title, section.columns, section.rows)
        _print_facts(report)
    if report.refused:
        total = report.scored + len(report.refused)
        click.echo(f"{len(report.refused)} of {total} images have no score.", err=True)


def _print_facts(report: EvaluationReport) -> None:
    labels = report.labels
    if labels.findings_without_labels:
        click.echo(f"Findings without labels: {', '.join(labels.findings_without_labels)}.")
    if labels.unused_columns:
        click.echo(f"Columns of {labels.name} that were not used: {', '.join(labels.unused_columns)}.")
    if report.unlabelled_files:
        click.echo(f"Files of the folder that no row of {labels.name} names: {report.unlabelled_files}.")
    if any(finding.f1 and finding.f1.threshold is not None for finding in report.groups[0].findings):
        click.echo(
            "F1: no threshold is stored, so the best one on these very images was taken. It is optimistic."
        )
    for note in report.notes:
        click.echo(f"Note: {note}")
