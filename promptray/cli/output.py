"""What commands share in talking to people: tables, progress, refusals. People read stderr or a table."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from shutil import get_terminal_size
from time import monotonic
from typing import Any
from unicodedata import category

import click

from promptray.cli.named_path import NamedPath
from promptray.runtime.bundle.manifest import Finding
from promptray.runtime.errors import PromptRayError
from promptray.runtime.site_choice import USER_SITE, SiteChoice

#: Unicode's categories of control, format and surrogate characters.
_STEERING = ("Cc", "Cf", "Cs")
_LONGEST = 120  # characters of a wording in a table
_LINE_SECONDS = 1.0  # between lines of progress in a log

bundle_argument = click.argument("bundle", type=NamedPath())
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
site_option = click.option(
    "--site",
    type=NamedPath(),
    metavar="DIR",
    default=None,
    help="Site directory with what this site added (default: the user's data folder).",
)
head_option = click.option("--head", metavar="NAME", help="Head of the bundle, where it has several.")
prepare_option = click.option(
    "--prepare",
    type=click.Choice(["cpu", "device"]),
    default="cpu",
    show_default=True,
    help="Where images are brought to the network's input; the result says which.",
)
reduced_decode_option = click.option(
    "--reduced-decode",
    is_flag=True,
    help="Decode JPEG 2000 no finer than the network needs; `promptray gate-decode` must have passed.",
)
reproducible_option = click.option(
    "--reproducible", is_flag=True, help="Fixed shapes: bit-equal scores whatever else is scored."
)
no_site_option = click.option("--no-site", is_flag=True, help="Ignore every site directory.")


def require_decoded_here(options: Mapping[str, Any]) -> None:
    """Refuse ``--reduced-decode`` where the CPU does not prepare images.

    Raises
    ------
    click.UsageError
    """
    if options["reduced_decode"] and options["prepare"] == "device":
        raise click.UsageError("--reduced-decode is of images that the CPU prepares")


def site_choice(site: str | None, no_site: bool = False) -> SiteChoice:
    """Return the ``site`` argument of ``Scorer.open`` for the two options."""
    if site is not None and no_site:
        raise click.UsageError("--site and --no-site exclude each other")
    if no_site:
        return None
    return USER_SITE if site is None else site


def visible(text: str) -> str:
    """Write out what would steer the terminal: control characters but the line feed, and turned text."""
    return "".join(
        char.encode("unicode_escape").decode() if char != "\n" and category(char) in _STEERING else char
        for char in text
    )


def refuse(error: PromptRayError) -> None:
    """Show a refusal on stderr, its cure on a line of its own."""
    refused = click.style("Refused: ", fg="red", bold=True)
    click.echo(f"{refused}[{error.code}] {visible(error.message)}", err=True)
    for label in ("artefact", "expected", "found", "cure"):
        value = getattr(error, label)
        if value:
            click.echo(f"  {label:<9}{visible(value)}", err=True)


def print_json(document: Any) -> None:
    """Print one JSON document on one line of stdout, in ASCII, which every console and pipe can carry.

    NaN cannot occur and would be an error.
    """
    click.echo(json.dumps(document, allow_nan=False))


def print_refusal(error: PromptRayError, file: str | None = None) -> None:
    """Print a refusal as a JSON document (docs/errors.md): of one image, `file`, or of the whole command."""
    of = {} if file is None else {"file": file}
    print_json({"schema": "promptray-refusal", "schema_version": 1, **of, "error": error.to_json()})


def written(finding: Finding) -> str:
    """Return a finding's wordings on one line, long ones shortened."""
    own, negative = (
        "; ".join(text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…" for text in texts)
        for texts in (finding.prompts, finding.negative_prompts)
    )
    return f"{own} (not: {negative})" if negative else own


def print_table(
    title: str, columns: list[str], rows: list[list[str]], *, right: tuple[int, ...] = ()
) -> None:
    """Print a table on stdout; columns in `right` are aligned to the right."""
    from tabulate import tabulate

    cells = [[visible(cell) for cell in row] for row in rows]
    head = [visible(column) for column in columns]
    table = tabulate(
        cells,
        head,
        tablefmt="simple",
        disable_numparse=True,  # numbers are written as they shall be shown
        colalign=["right" if number in right else "left" for number in range(len(columns))],
        # A pipe has no width, and its reader wants a line a row.
        maxcolwidths=_fitted([head, *cells]) if sys.stdout.isatty() else None,
    )
    click.echo(click.style(visible(title), bold=True))
    click.echo(table)


def _fitted(rows: list[list[str]]) -> list[int]:
    """Return widths of columns that fit the terminal: the widest give way, so that numbers stay whole."""
    from wcwidth import wcswidth

    widths = [
        max(wcswidth(line) for cell in column for line in cell.split("\n"))
        for column in zip(*rows, strict=True)
    ]
    room = get_terminal_size().columns - 2 * (len(widths) - 1)
    while sum(widths) > max(room, len(widths)):
        widths[widths.index(max(widths))] -= 1
    return [max(width, 1) for width in widths]


@contextmanager
def progress(title: str) -> Iterator[Callable[[str, str, float], None]]:
    """Show a progress bar with elapsed time on stderr; yields ``report(stage, message, fraction)``.

    Where stderr is no terminal, lines are written instead (see :func:`_lines`).
    """
    if not sys.stderr.isatty():
        yield _lines()
        return
    from tqdm import tqdm

    said = ""
    layout = "{percentage:3.0f} % {bar:24} {elapsed} {desc}"  # what a narrow terminal cuts off comes last
    with tqdm(
        desc=title, total=1.0, bar_format=layout, file=sys.stderr, leave=False, dynamic_ncols=True, miniters=0
    ) as bar:

        def report(stage: str, message: str, fraction: float) -> None:
            nonlocal said
            bar.n = fraction
            bar.set_description_str(f"{stage}: {visible(message)}", refresh=stage != said)
            bar.update(0)
            said = stage

        yield report


def _lines() -> Callable[[str, str, float], None]:
    """Return a report for logs: a line where a stage begins or is full, between them one a second at most."""
    said: tuple[str, str] = ("", "")
    at = 0.0

    def report(stage: str, message: str, fraction: float) -> None:
        nonlocal said, at
        now = monotonic()
        due = stage != said[0] or fraction >= 1 or now - at >= _LINE_SECONDS
        if due and (stage, message) != said:
            click.echo(f"{fraction:4.0%} {stage}: {visible(message)}", err=True)
            said, at = (stage, message), now

    return report
