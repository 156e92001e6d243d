"""``promptray accept``."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptray.cli.finite_range import FiniteRange
from promptray.cli.label_options import read_label_options, table_options
from promptray.cli.opening_options import opening_of, opening_options
from promptray.cli.output import bundle_argument, json_option, print_json, print_table, progress, visible
from promptray.cli.threads import ScoringCommand

if TYPE_CHECKING:
    from promptray.calibrate.accept.report import AcceptanceReport
    from promptray.calibrate.accept.run import Asked
    from promptray.calibrate.bench.run import Settings
    from promptray.calibrate.tables.labels import Labels

_PATH = click.Path(path_type=Path)
_REPORT, _PAGE = "accept.json", "accept.html"
_LEAST_SECONDS, _MOST_SECONDS = 1.0, 7 * 86400.0


@click.command("accept", cls=ScoringCommand)
@bundle_argument
@click.option("--images", required=True, type=_PATH, help="Folder of the site's own images.")
@click.option("--sla", metavar="TERMS", help="Conditions such as p99<50ms,rss<1GB; see bench.  [required]")
@click.option("-o", "--output", required=True, type=_PATH, help=f"New folder for {_REPORT} and {_PAGE}.")
@click.option(
    "--reference", type=_PATH, metavar="BUNDLE", help="The fp32 original to hold the scores against."
)
@click.option("--labels", type=_PATH, help="CSV as for evaluate: AUROC, and intervals over patients.")
@table_options
@click.option(
    "--refused-at-most",
    type=FiniteRange(0, 1),
    default=0.0,
    show_default=True,
    help="Share of the images that the door may refuse.",
)
@click.option(
    "--budget", type=FiniteRange(_LEAST_SECONDS, _MOST_SECONDS), default=60.0, show_default=True,
    help="Seconds to measure latency in. A percentile that it is too short for is inconclusive.",
)  # fmt: skip
@click.option("--modality", help="Modality of images that state none (PNG, JPEG), for example DX.")
@opening_options
@json_option
def command(bundle: str, images: Path, output: Path, as_json: bool, **options: Any) -> int:
    """Accept a bundle on the machine that will score, or not: one dated report that can be filed.

    Its parts: every hash and the schema, the golden self-test, the site's images at the door, agreement with
    the fp32 original (--reference) by the gates of its build, latency against --sla. It is accepted, exit
    code 0, only where every part passed; inconclusive is not passed.

    \b
    Examples:
      promptray accept chest.bundle --images films --sla "p99<500ms,rss<1GB" -o acceptance
      promptray accept int8.bundle --reference fp32.bundle --images films --sla "p99<200ms" -o acceptance
    """
    from promptray.calibrate.accept.run import accept
    from promptray.calibrate.output_folder import OutputFolder

    asked = _asked(bundle, images, options)
    # A folder that cannot be written to is refused before the run, not after it.
    target = OutputFolder(output, [_PAGE, _REPORT])
    with progress("acceptance") as bar:
        report = accept(asked, progress=bar)
    seal = _write(report, target)
    _print(report, seal, as_json)
    return 0 if report.verdict == "accepted" else 1


def _asked(bundle: str, images: Path, options: dict[str, Any]) -> Asked:
    """Return what is to be held; wrong usage is refused before the bundle is opened."""
    from promptray.calibrate.accept.agreement import Statistics
    from promptray.calibrate.accept.run import Asked
    from promptray.calibrate.score_images import locate
    from promptray.calibrate.tables.image_folder import ImageFolder

    opening, settings = opening_of(bundle, options), _settings(options)
    folder, labels = ImageFolder(images), options["labels"]

    def read_labels(keys: Collection[str]) -> Labels:
        return locate(read_label_options(labels, keys, options), folder, options["missing"])

    return Asked(
        opening=opening,
        reference=options["reference"],
        folder=folder,
        read_labels=read_labels if labels else None,
        modality=options["modality"],
        sla=options["sla"],
        bench=settings,
        statistics=Statistics(options["uncertain"], options["draws"], options["seed"]),
        refused_at_most=options["refused_at_most"],
    )


def _settings(options: dict[str, Any]) -> Settings:
    from promptray.calibrate.accept.latency import bench_settings
    from promptray.calibrate.bench.sla import parse_sla

    if options["sla"] is None:
        raise click.UsageError(
            "--sla is required: a latency without a limit proves nothing; for example --sla 'p99<500ms'"
        )
    try:
        return bench_settings(parse_sla(options["sla"]), options["budget"], options["seed"])
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--sla") from None


def _write(report: AcceptanceReport, target: Any) -> str:
    """Write both files, the sealed one last: a folder that holds it holds the whole report."""
    import hashlib

    from promptray.calibrate.accept.page import acceptance_html
    from promptray.calibrate.evaluation_report import to_json

    document = to_json(report)
    seal = hashlib.sha256(document).hexdigest()
    target.write({_PAGE: acceptance_html(report, seal).encode(), _REPORT: document})
    return seal


def _print(report: AcceptanceReport, seal: str, as_json: bool) -> None:
    import msgspec

    from promptray.calibrate.accept.table import facts, headline, parts

    if as_json:
        print_json({"sha256": seal, "report": msgspec.to_builtins(report)})
        return
    section = parts(report)
    print_table(headline(report), section.columns, section.rows)
    for fact in facts(report):
        click.echo(visible(fact))
    click.echo(f"Seal, sha256 of {_REPORT}: {seal}")
