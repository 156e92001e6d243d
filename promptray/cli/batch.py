"""``promptray batch``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from promptray.cli.extras import require_extra
from promptray.cli.image_files import image_files
from promptray.cli.output import (
    bundle_argument,
    json_option,
    no_site_option,
    print_json,
    progress,
    site_choice,
    site_option,
)
from promptray.cli.threads import Threads

_PATH = click.Path(path_type=Path)


@click.command("batch")
@bundle_argument
@click.argument("images", nargs=-1, type=_PATH)
@click.option("--list", "listed", type=_PATH, help="Text file (UTF-8) of more images, one path a line.")
@click.option("-o", "--output", required=True, type=_PATH, help="Folder of results: new, or to go on with.")
@click.option("--modality", help="Modality of inputs that state none (PNG, JPEG), for example CR or DX.")
@click.option("--frame", type=click.IntRange(1), help="Frame of multi-frame objects, counted from 1.")
@click.option("--strict", is_flag=True, help="Refuse images whose tags are absent, instead of noting it.")
@click.option("--backend", default="auto", show_default=True, help="Backend; the summary says which ran.")
@click.option(
    "--workers", type=click.IntRange(1, 1024), help="Processes (default: one for two cores, or for each GPU)."
)
@click.option("--threads", type=Threads(), help="Of a worker (default: cores divided by workers).")
@click.option(
    "--part",
    type=click.IntRange(1, 100_000),
    default=100,
    show_default=True,
    help="Images of one file of results: what a stopped worker does again.",
)
@click.option("--reproducible", is_flag=True, help="Fixed shapes: bit-equal scores whatever else is scored.")
@click.option("--ray-address", help="Ray cluster to use (default: start one on this machine, and end it).")
@site_option
@no_site_option
@json_option
def command(
    bundle: str,
    images: tuple[Path, ...],
    listed: Path | None,
    output: Path,
    as_json: bool,
    **options: Any,
) -> int:
    """Score an archive (files, folders, a list) with many workers, to Parquet files in a folder.

    Every image has exactly one row: its scores, or the code it was refused with. A batch that was stopped
    goes on when it is called again in the same way; with another bundle, backend or version it is refused.

    \b
    Examples:
      promptray batch chest.bundle archive/ -o scores
      promptray batch chest.bundle --list films.txt -o scores --workers 8 --json
    """
    require_extra("ray")
    _require_apart(images, output)
    from promptray.calibrate.batch.images import read_list
    from promptray.calibrate.batch.score import score_batch

    files = [*image_files(images), *(read_list(listed) if listed else [])]
    if not files:
        raise click.UsageError("there is no image: name files, folders that hold some, or a --list of them")
    site = site_choice(options.pop("site"), options.pop("no_site"))
    address = options.pop("ray_address")
    with progress("scoring") as report:
        made = score_batch(bundle, files, output, site=site, address=address, progress=report, **options)
    refused = made.images - made.scored
    if as_json:
        import msgspec

        print_json(msgspec.to_builtins(made))
    else:
        click.echo(f"{output}: {made.scored} of {made.images} images scored, in {made.parts} files")
    if refused:
        codes = ", ".join(f"{code} {count}" for code, count in made.refused.items())
        click.echo(f"{refused} of {made.images} images were refused and have no score: {codes}.", err=True)
    return 1 if refused else 0


def _require_apart(images: tuple[Path, ...], output: Path) -> None:
    """Refuse results within a folder of images: a call that goes on would take them for images."""
    place = Path(os.path.realpath(output))
    within = {place, *place.parents}
    if any(each.is_dir() and Path(os.path.realpath(each)) in within for each in images):
        raise click.UsageError("-o lies in a folder of images, where its files would be taken for images")
