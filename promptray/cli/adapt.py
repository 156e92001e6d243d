"""``promptray adapt``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptray.cli.finite_range import FiniteRange
from promptray.cli.output import json_option, print_json, print_table, progress, visible
from promptray.cli.threads import ScoringCommand

if TYPE_CHECKING:
    from promptray.calibrate.adapt.report import AdaptationReport

_PATH = click.Path(path_type=Path)
_SHARE = FiniteRange(0, 1, min_open=True, max_open=True)
_STAGES = ("zero-shot", "probe", "fine-tune")


@click.command("adapt", cls=ScoringCommand)
@click.argument("recipe", type=_PATH)
@click.option("--images", type=_PATH, required=True, help="Folder of the images that the labels name.")
@click.option("--labels", type=_PATH, required=True, help="CSV: file, the class, patient_id ...")
@click.option("--column", required=True, help="The column that holds each image's class.")
@click.option("-o", "--output", type=_PATH, required=True, help="Folder for bundles, recipes and report.")
@click.option("--stages", help="Some of zero-shot,probe,fine-tune (default: all that the recipe can have).")
@click.option(
    "--class",
    "class_names",
    multiple=True,
    metavar="VALUE=KEY",
    help="The column calls the recipe's class KEY so.",
)
@click.option("--patient", help="Column of patients (default: patient_id and other usual names).")
@click.option("--exam", help="Column of examinations (default: exam_id, study_id and other usual names).")
@click.option("--group", help="Column of what must not be divided either: a block, a site.")
@click.option("--split", help="Column that says train, val or test; by default images are divided here.")
@click.option("--test", type=_SHARE, default=0.25, show_default=True, help="Share of the images to test on.")
@click.option("--val", type=_SHARE, default=0.15, show_default=True, help="Share to stop fine-tuning by.")
@click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of all that is drawn."
)
@click.option(
    "--class-weights",
    type=click.Choice(["none", "balanced"]),
    default="none",
    show_default=True,
    help="In training, let each image count once, or each class.",
)
@click.option("--epochs", type=click.IntRange(1), help="Fine-tuning: at most (default: 100).")
@click.option("--batch-size", type=click.IntRange(1), help="Fine-tuning: images of a step (default: 64).")
@click.option("--learning-rate", type=FiniteRange(0, min_open=True), help="Fine-tuning (default: 1e-4).")
@click.option(
    "--patience", type=click.IntRange(1), help="Fine-tuning: epochs without progress (default: 10)."
)
@click.option("--label-smoothing", type=FiniteRange(0, 1, max_open=True), help="Fine-tuning (default: 0.1).")
@click.option(
    "--missing",
    type=click.Choice(["error", "count"]),
    default="error",
    show_default=True,
    help="Labelled images that are not there or cannot be read: refuse, or list them and go on.",
)
@click.option(
    "--draws", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="For each interval."
)
@click.option("--modality", help="Modality of images that state none (PNG, JPEG), for example MG.")
@click.option("--cache", type=_PATH, help="Folder of finished build stages (default: user cache).")
@json_option
def command(
    recipe: Path,
    images: Path,
    labels: Path,
    column: str,
    output: Path,
    stages: str | None,
    class_names: tuple[str, ...],
    cache: Path | None,
    as_json: bool,
    **options: Any,
) -> int:
    """Adapt a model to labelled images: zero-shot, linear probe, fine-tuning, each a bundle, side by side.

    The images are divided by patient where the table has a column of patients. A run that was killed goes on
    when it is called again in the same way.

    \b
    Examples:
      promptray adapt density.yaml --images films --labels labels.csv --column density -o adapted
      promptray adapt density.yaml --images films --labels labels.csv --column density --stages probe -o probe
    """
    import msgspec

    from promptray.cli.extras import require_extra

    chosen = _stages(stages)
    if options["test"] + options["val"] >= 1:
        raise click.UsageError("--test and --val leave nothing to train on")
    require_extra("calibrate")
    from promptray.calibrate.adapt.cases import Columns
    from promptray.calibrate.adapt.run import TRAINING_OPTIONS, Settings, adapt

    settings = Settings(
        stages=chosen,
        training={
            field: options[name] for name, field in TRAINING_OPTIONS.items() if options[name] is not None
        },
        class_names=_class_names(class_names),
        **{
            name: options[name]
            for name in ("test", "val", "seed", "class_weights", "modality", "missing", "draws")
        },
    )
    columns = Columns(column, **{name: options[name] for name in ("patient", "exam", "group", "split")})
    with progress("adapting") as bar:
        report = adapt(recipe, images, labels, columns, output, settings, cache=cache, progress=bar)
    for note in report.notes:
        click.echo(f"Note: {visible(note)}", err=True)
    if as_json:
        print_json(msgspec.to_builtins(report))
    else:
        _print(report, output)
    return 0


def _stages(text: str | None) -> list[Any] | None:
    if text is None:
        return None
    named = [name.strip() for name in text.split(",")]
    if not set(named) <= set(_STAGES) or len(set(named)) != len(named):
        raise click.UsageError(f"--stages wants some of {','.join(_STAGES)}, each once")
    return named


def _class_names(stated: tuple[str, ...]) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in stated:
        value, separator, key = each.rpartition("=")  # a table's value may hold one
        if not (value and separator and key) or value in found:
            raise click.UsageError("--class wants VALUE=KEY, each value once, for example --class F=fatty")
        found[value] = key
    return found


def _print(report: AdaptationReport, output: Path) -> None:
    from promptray.calibrate.adapt.page import advice_line, difference_rows, stage_rows

    print_table(f"{report.intervals.units} {report.division.units} in the test part", *stage_rows(report))
    if report.differences:
        print_table("The same units drawn for both", *difference_rows(report))
    for line in (*report.advice.reasons, advice_line(report)):
        click.echo(line)
    click.echo(
        f"All of it is in {output}: report.json, report.md, and a bundle, checkpoint and recipe per stage."
    )
