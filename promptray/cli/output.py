"""What commands share in talking to people: tables, progress, refusals. People read stderr or a table."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any
from unicodedata import category

import click

from promptray.runtime.bundle.manifest import Finding
from promptray.runtime.errors import PromptRayError
from promptray.runtime.site_choice import USER_SITE, SiteChoice

#: Unicode's categories of control, format and surrogate characters.
_STEERING = ("Cc", "Cf", "Cs")
_LONGEST = 120  # characters of a wording in a table
_LINE_SECONDS = 1.0  # between lines of progress in a log

bundle_argument = click.argument("bundle", type=click.Path(exists=False))
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
site_option = click.option(
    "--site",
    metavar="DIR",
    default=None,
    help="Site directory with what this site added (default: the user's data folder).",
)
head_option = click.option("--head", metavar="NAME", help="Head of the bundle, where it has several.")
no_site_option = click.option("--no-site", is_flag=True, help="Ignore every site directory.")


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
    from rich.console import Console
    from rich.table import Table

    class Out(Console):
        def on_broken_pipe(self) -> None:
            """Leave it to the command line, which ends with 0; rich would end with 1."""
            raise BrokenPipeError

    table = Table(title=_plain(title), title_justify="left", title_style="bold", header_style="bold")
    for number, column in enumerate(columns):
        table.add_column(_plain(column), justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*[_plain(cell) for cell in row])
    # A pipe has no width: give it enough for one line a row. A name such as ":warning:.png" is no emoji.
    Out(width=None if sys.stdout.isatty() else 160, emoji=False).print(table)


def _plain(text: str) -> str:
    from rich.markup import escape

    return escape(visible(text))


@contextmanager
def progress(title: str) -> Iterator[Callable[[str, str, float], None]]:
    """Show a progress bar with elapsed time on stderr; yields ``report(stage, message, fraction)``.

    Where stderr is no terminal, lines are written instead (see :func:`_lines`).
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True, emoji=False)
    if not console.is_terminal:
        yield _lines()
        return
    columns = (
        TextColumn("{task.description}", markup=False),  # it holds names of files
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=1.0)

        def report(stage: str, message: str, fraction: float) -> None:
            bar.update(task, completed=fraction, description=f"{stage}: {visible(message)}")

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
