"""The options by which ``evaluate``, ``compare`` and ``calibrate`` read labels, and measure with them."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptray.cli.option_set import option_set

if TYPE_CHECKING:
    from promptray.calibrate.evaluate import Settings
    from promptray.calibrate.tables.labels import Labels

_FILE = click.Path(path_type=Path)
_READING = (
    click.option(
        "--labels-format",
        type=click.Choice(["columns", "nih"]),
        default="columns",
        show_default=True,
        help="A column per finding, or the NIH's Data_Entry_2017.csv.",
    ),
    click.option(
        "--column",
        "columns",
        multiple=True,
        metavar="COLUMN=KEY",
        help="This column holds the labels of the finding KEY.",
    ),
    click.option("--pack", help="Columns may be named as in the label files of this pack's data set."),
    click.option("--only", type=_FILE, help="Use only the images of this list, one to a line."),
    click.option(
        "--missing",
        type=click.Choice(["error", "count"]),
        default="error",
        show_default=True,
        help="Labelled images that are not there: refuse, or count them and go on.",
    ),
    click.option(
        "--uncertain",
        type=click.Choice(["ignore", "present", "absent"]),
        default="ignore",
        show_default=True,
        help="What a label of -1 counts as.",
    ),
)
_LEAST = (
    click.option(
        "--min-patients",
        type=click.IntRange(1),
        default=5,
        show_default=True,
        help="Fewer with or without a finding: inconclusive.",
    ),
)
_DRAWS = (
    click.option(
        "--draws",
        type=click.IntRange(1, 100_000),
        default=1000,
        show_default=True,
        help="Draws of patients for each interval.",
    ),
    click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the draws."),
)


#: Adds the options by which labels are read and measured with.
label_options = option_set(*_READING, *_LEAST, *_DRAWS)
#: Adds the options by which labels are read, and patients drawn.
table_options = option_set(*_READING, *_DRAWS)


def read_label_options(path: Path, keys: Collection[str], options: dict[str, Any]) -> Labels:
    """Read the labels as the options say.

    Raises
    ------
    PromptRayError
        ``table.*``, ``prompt.unknown-pack``.
    """
    from promptray.calibrate.tables.image_list import only_listed
    from promptray.calibrate.tables.labels import read_labels
    from promptray.calibrate.tables.nih import read_nih_labels
    from promptray.runtime.packs import read_pack

    if options["labels_format"] == "nih":
        if options["columns"] or options["pack"]:
            raise click.UsageError("--column and --pack name columns, which --labels-format nih has none of")
        labels = read_nih_labels(path, keys)
    else:
        pack = read_pack(options["pack"]).findings if options["pack"] else []
        aliases = {finding.label: finding.key for finding in pack if finding.label}
        labels = read_labels(path, keys, renamed=_renamed(options["columns"]), aliases=aliases)
    return only_listed(labels, options["only"]) if options["only"] else labels


def settings_of(options: dict[str, Any], *, ordinal: bool = False) -> Settings:
    """Return how to measure, as the options say."""
    from promptray.calibrate.evaluate import Settings

    return Settings(
        uncertain=options["uncertain"],
        draws=options["draws"],
        seed=options["seed"],
        min_patients=options["min_patients"],
        ordinal=ordinal,
    )


def _renamed(columns: tuple[str, ...]) -> dict[str, str]:
    renamed: dict[str, str] = {}
    for each in columns:
        column, separator, key = each.partition("=")
        if not (column and separator and key):
            raise click.UsageError(
                "--column wants COLUMN=KEY, for example --column Effusion='pleural effusion'"
            )
        if column in renamed:
            raise click.UsageError("--column names a column twice")
        renamed[column] = key
    return renamed
