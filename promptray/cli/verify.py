"""``promptray verify``."""

from __future__ import annotations

from typing import Literal

import click

from promptray.cli.output import (
    bundle_argument,
    json_option,
    no_site_option,
    prepare_option,
    print_json,
    progress,
    site_choice,
    site_option,
)
from promptray.cli.threads import ScoringCommand, threads_option


@click.command("verify", cls=ScoringCommand)
@bundle_argument
@site_option
@no_site_option
@click.option("--backend", default="auto", show_default=True, help="Backend of the golden self-test.")
@prepare_option
@threads_option
@json_option
def command(
    bundle: str,
    site: str | None,
    no_site: bool,
    backend: str,
    prepare: Literal["cpu", "device"],
    threads: int | None,
    as_json: bool,
) -> None:
    """Check a bundle on this machine: every hash, the schema, preprocessing and scores of the golden images.

    \b
    Example:
      promptray verify chest.bundle && echo fit for use
    """
    from promptray.runtime.verify import verify

    with progress("verifying") as report:
        found = verify(
            bundle,
            site=site_choice(site, no_site),
            backend=backend,
            threads=threads,
            prepare=prepare,
            progress=report,
        )
    if as_json:
        print_json(found.to_json())
        return
    click.echo(f"OK  seal and schema: {found.name}, sha256 {found.sha256}")
    click.echo(f"OK  {found.files} files match their hashes; {found.site_entries} site entries")
    click.echo(f"OK  {found.golden.pictures} golden images: preprocessing equal in every pixel")
    for head in found.golden.heads:
        of = f" of {head.head}" if len(found.golden.heads) > 1 else ""
        maps = "" if head.map_error is None else f", maps {head.map_error:.2g} (bound {head.map_tolerance:g})"
        click.echo(
            f"OK  golden scores{of} on {found.backend}, against the {head.against}: largest difference "
            f"{head.score_error:.2g} (bound {head.score_tolerance:g}){maps}"
        )
        if head.against != "original":
            maps = "" if head.golden_map_error is None else f", of a map {head.golden_map_error:.2g}"
            click.echo(
                f"    for information: largest difference of a golden score to the {head.golden} in fp32 "
                f"{head.golden_score_error:.2g}{maps}"
            )
    if (levels := found.golden.level_error) is not None:
        click.echo(
            f"OK  golden images and made-up frames prepared on the device: pixels off by {levels:.2g} grey "
            "levels at most (bound 1)"
        )
    if found.golden.text_error is not None:
        error = found.golden.text_error
        click.echo(f"OK  text side: encodes a finding as it is stored, within {error:.2g} of its size")
