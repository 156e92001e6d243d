"""The options by which ``bench`` and ``accept`` open a bundle: as ``score`` will open it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptray.cli.option_set import option_set
from promptray.cli.output import (
    no_site_option,
    prepare_option,
    reproducible_option,
    require_decoded_here,
    site_choice,
    site_option,
)
from promptray.cli.threads import threads_option

if TYPE_CHECKING:
    from promptray.calibrate.bench.opening import Opening

#: Adds the options by which a bundle is opened.
opening_options = option_set(
    click.option("--strict", is_flag=True, help="Refuse images whose tags are absent, instead of noting it."),
    click.option("--backend", default="auto", show_default=True, help="Backend; the report says which ran."),
    prepare_option,
    click.option(
        "--reduced-decode",
        is_flag=True,
        help="As for score, also where `promptray gate-decode` did not pass; the report says whether it did.",
    ),
    reproducible_option,
    threads_option,
    site_option,
    no_site_option,
)


def opening_of(bundle: str, options: Mapping[str, Any]) -> Opening:
    """Return how to open a bundle, as the options say.

    Raises
    ------
    click.UsageError
        For options that exclude each other.
    """
    from promptray.calibrate.bench.opening import Opening

    require_decoded_here(options)
    return Opening(
        Path(bundle),
        backend=options["backend"],
        site=site_choice(options["site"], options["no_site"]),
        threads=options["threads"],
        strict=options["strict"],
        prepare=options["prepare"],
        reduced_decode=options["reduced_decode"],
        reproducible=options["reproducible"],
    )
