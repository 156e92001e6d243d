"""``promptray calibrate``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptray.cli.label_options import read_label_options, table_options
from promptray.cli.output import (
    bundle_argument,
    head_option,
    json_option,
    prepare_option,
    print_json,
    print_table,
    progress,
    site_choice,
    site_option,
)
from promptray.cli.threads import ScoringCommand, threads_option

if TYPE_CHECKING:
    from promptray.calibrate.probability.report import SiteReport
    from promptray.runtime.bundle import Bundle
    from promptray.runtime.scorer import Scorer
    from promptray.runtime.site import Site
    from promptray.runtime.site_calibration import CalibrationFile

_PATH = click.Path(path_type=Path)


@click.command("calibrate", cls=ScoringCommand)
@bundle_argument
@click.argument("labels", required=False, type=_PATH)
@click.option("--images", type=_PATH, help="Folder of the images that the labels name.")
@click.option(
    "--method",
    type=click.Choice(["platt", "temperature", "isotonic"]),
    default="platt",
    show_default=True,
    help="The curve from logit to probability.",
)
@click.option(
    "--operating-point",
    type=click.Choice(["sensitivity-first", "specificity-first", "none"]),
    default="sensitivity-first",
    show_default=True,
    help="How the decision threshold is chosen.",
)
@click.option(
    "--target",
    type=click.FloatRange(0.1, 1, min_open=True, max_open=True),
    default=0.95,
    show_default=True,
    help="The share that the threshold keeps, above 0.1.",
)
@click.option("--finding", "findings", multiple=True, help="Only these (default: all that have labels).")
@table_options
@click.option("--modality", help="Modality of images that state none (PNG, JPEG), for example DX.")
@click.option("--strict", is_flag=True, help="Refuse images whose tags are absent, instead of noting it.")
@click.option("--backend", default="auto", show_default=True, help="Backend; a calibration is of its scores.")
@prepare_option
@threads_option
@click.option("--report", "page", type=_PATH, help="New HTML file: tables and reliability diagrams.")
@click.option("--dry-run", is_flag=True, help="Store nothing.")
@click.option("--list", "show", is_flag=True, help="List what this site has stored, and do nothing else.")
@click.option("--remove", metavar="FINDING", help="Remove what is stored for a finding, and nothing else.")
@head_option
@site_option
@json_option
def command(bundle: str, labels: Path | None, as_json: bool, **options: Any) -> int:
    """Fit probabilities and thresholds on a site's labelled images, and keep them in its site directory.

    From then on this site's scores of this bundle have a probability and a flag. Findings with too few
    patients are refused one by one, with the number that would do, and make the exit code 1; the others are
    stored.

    \b
    Examples:
      promptray calibrate chest.bundle labels.csv --images films --report calibration.html
      promptray calibrate chest.bundle labels.csv --images films --finding edema --target 0.9 --dry-run
      promptray calibrate chest.bundle --list
      promptray calibrate chest.bundle --remove edema
    """
    from promptray.runtime.bundle import Bundle
    from promptray.runtime.site_choice import open_site

    if (labels is not None) + options["show"] + (options["remove"] is not None) != 1:
        raise click.UsageError("give LABELS to calibrate, or --list, or --remove FINDING")
    if labels is not None:
        return _calibrate(bundle, labels, as_json, options)
    opened = Bundle.open(bundle)
    site = open_site(site_choice(options["site"]), opened.hash)
    assert site is not None  # noqa: S101 - this command has no --no-site
    if options["show"]:
        _list(opened, site, as_json)
    else:
        _remove(opened, site, options["remove"], options["head"])
    return 0


def _calibrate(bundle: str, labels: Path, as_json: bool, options: dict[str, Any]) -> int:
    from promptray.cli.extras import require_fitting

    require_fitting()
    from promptray.calibrate.output_folder import OutputFolder
    from promptray.calibrate.probability.page import calibration_page
    from promptray.runtime.scorer import Scorer

    if options["images"] is None:
        raise click.UsageError("--images is needed, the folder of the images that the labels name")
    page = options["page"]
    # A file that cannot be written is refused before hours of scoring, not after them.
    target = OutputFolder(page.parent, [page.name]) if page else None
    with (
        progress("calibrating") as bar,
        Scorer.open(
            bundle,
            backend=options["backend"],
            site=site_choice(options["site"]),
            threads=options["threads"],
            strict=options["strict"],
            prepare=options["prepare"],
        ) as scorer,
    ):
        report, made = _fitted(scorer, labels, options, bar)
        if not options["dry_run"]:
            report = _stored(scorer, report, made, options["site"])
    if target:
        target.write({page.name: calibration_page(report).encode()})
    _print(report, as_json)
    return 1 if report.refused or any(each.refused for each in report.findings) else 0


def _fitted(
    scorer: Scorer, path: Path, options: dict[str, Any], bar: Any
) -> tuple[SiteReport, list[CalibrationFile]]:
    from promptray.calibrate.probability.site import Settings, calibrate_scorer, require_calibratable
    from promptray.calibrate.score_images import locate
    from promptray.calibrate.tables.image_folder import ImageFolder
    from promptray.runtime.heads import require_head

    head = require_head(scorer.bundle.manifest, options["head"])
    require_calibratable(head)
    for key in options["findings"]:
        scorer.prompts.state.find((head.name, key))
    keys = [finding.key for finding in scorer.prompts.of_head(head.name)]
    labels = read_label_options(path, keys, options)
    folder = ImageFolder(options["images"])
    rule = options["operating_point"]
    return calibrate_scorer(
        scorer,
        locate(labels, folder, options["missing"]),
        folder,
        Settings(
            method=options["method"],
            rule=None if rule == "none" else rule,
            target=options["target"],
            uncertain=options["uncertain"],
            draws=options["draws"],
            seed=options["seed"],
        ),
        head=head.name,
        findings=options["findings"],
        modality=options["modality"],
        progress=bar,
    )


def _stored(
    scorer: Scorer, report: SiteReport, made: list[CalibrationFile], directory: str | None
) -> SiteReport:
    import msgspec

    from promptray.calibrate.probability.site import stale_notes
    from promptray.runtime.site_calibration import keep_calibrations, site_calibrations
    from promptray.runtime.site_choice import open_site

    site = open_site(site_choice(directory), scorer.bundle.hash)
    assert site is not None  # noqa: S101 - this command has no --no-site
    notes = [*report.notes, *stale_notes(report, site_calibrations(site, scorer.bundle.manifest))]
    if made:
        keep_calibrations(site, report.head, made)
    return msgspec.structs.replace(report, stored=bool(made), notes=notes)


def _print(report: SiteReport, as_json: bool) -> None:
    import msgspec

    from promptray.calibrate.probability.table import sections

    if as_json:
        print_json(msgspec.to_builtins(report))
        return
    for section in sections(report):
        print_table(section.title, section.columns, section.rows)
    if report.labels.unused_columns:
        unused = ", ".join(report.labels.unused_columns)
        click.echo(f"Columns of {report.labels.name} that were not used: {unused}.")
    for note in report.notes:
        click.echo(f"Note: {note}")
    fitted = sum(each.calibration is not None for each in report.findings)
    click.echo(
        f"{fitted} findings were calibrated. " + ("Stored." if report.stored else "Nothing was stored.")
    )


def _list(bundle: Bundle, site: Site, as_json: bool) -> None:
    from promptray.calibrate.probability.table import stored_section
    from promptray.runtime.site_calibration import facts, site_calibrations

    stored = list(site_calibrations(site, bundle.manifest).values())
    if as_json:
        print_json(
            {"sha256": bundle.hash, "revision": site.revision, "calibrations": list(map(facts, stored))}
        )
    elif stored:
        section = stored_section(stored)
        print_table(section.title, section.columns, section.rows)
    else:
        click.echo("This site has no calibration of this bundle.")


def _remove(bundle: Bundle, site: Site, key: str, head: str | None) -> None:
    """Remove an entry without looking at its payload: this mends a site with a damaged one."""
    from promptray.runtime.errors import PromptError

    heads = [entry.head for entry in site.entries("calibration") if entry.key == key]
    if head is None and len(heads) > 1:
        raise PromptError(
            "prompt.ambiguous",
            "several heads have a calibration of this finding",
            artefact=key,
            expected=" or ".join(heads),
            cure="name the head with `--head`",
        )
    site.remove("calibration", head or next(iter(heads), bundle.manifest.heads[0].name), key)
    click.echo(f"Removed the calibration of {key}.")
