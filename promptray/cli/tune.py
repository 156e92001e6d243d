"""``promptray tune``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptray.cli.image_files import image_files
from promptray.cli.output import (
    bundle_argument,
    json_option,
    print_json,
    print_table,
    progress,
    site_choice,
    site_option,
)
from promptray.cli.threads import ScoringCommand
from promptray.runtime.backends import HOST
from promptray.runtime.bundle import Bundle
from promptray.runtime.scorer import Scorer
from promptray.runtime.site import Site
from promptray.runtime.site_choice import SiteChoice, open_site
from promptray.runtime.tuning import KIND, Tuning, machine_here, read_tunings, write_tuning

if TYPE_CHECKING:
    from numpy.typing import NDArray


@click.command("tune", cls=ScoringCommand)
@bundle_argument
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="An image or a folder (the first --rounds files; default: the golden ones).",
)
@click.option("--modality", help="Modality of images that state none (PNG, JPEG), for example CR or DX.")
@click.option(
    "--rounds", type=click.IntRange(5), default=21, show_default=True, help="Times that every way is timed."
)
@click.option("--list", "listed", is_flag=True, help="Show what was measured, and measure nothing.")
@click.option("--remove", metavar="KEY", help="Remove what was measured on a machine, and measure nothing.")
@site_option
@json_option
def command(
    bundle: str,
    images: Path | None,
    modality: str | None,
    rounds: int,
    listed: bool,
    remove: str | None,
    site: str | None,
    as_json: bool,
) -> None:
    """Measure the ways in which this machine's processor can run a bundle, and keep the fastest.

    Backends that the bundle was gated on, threads, and settings of each take turns with the usual way, ONNX
    Runtime on all cores; each must give the golden pictures their scores, and is left out where calibrations
    of the site would no longer be applied. The choice is kept in the site directory, for this machine and
    these versions of the software: `--backend auto` then follows it, and results say so in `backend.reason`.
    Run it while the machine does nothing else.

    \b
    Examples:
      promptray tune chest.bundle
      promptray tune chest.bundle --images films --rounds 51
      promptray tune chest.bundle --list --json
      promptray tune chest.bundle --remove x86_64-avx2-0123456789abcdef0123456789abcdef
    """
    if (listed or remove) and (images or modality or (listed and remove)):
        raise click.UsageError("--list and --remove stand alone: they measure nothing")
    choice = site_choice(site)
    local = open_site(choice, Bundle.open(bundle).hash)
    assert local is not None  # noqa: S101 - the command has no --no-site
    if remove:
        local.remove(KIND, "", remove)
        print_json({"removed": remove}) if as_json else click.echo(f"Removed {remove}.")
    elif listed:
        _list(list(read_tunings(local).values()), as_json)
    else:
        found = _measured(bundle, local, choice, images, modality, rounds)
        print_json(found.document) if as_json else _print(found)


def _measured(
    bundle: str, local: Site, choice: SiteChoice, images: Path | None, modality: str | None, rounds: int
) -> Tuning:
    from promptray.calibrate.tune import tune

    local.require_writable()
    pixels = None if images is None else _pixels(bundle, images, modality, rounds)
    with progress("measuring") as report:
        found = tune(bundle, site=choice, pixels=pixels, rounds=rounds, progress=report)
    write_tuning(local, found)
    return found


def _pixels(bundle: str, images: Path, modality: str | None, rounds: int) -> list[NDArray[Any]]:
    """Prepare one image for each round: more would take memory and never be scored."""
    declared = {} if modality is None else {"modality": modality}
    with Scorer.open(bundle, backend=HOST, site=None) as scorer:
        files = islice(image_files((images,)), rounds)
        found = [scorer.prepare(file, **declared).network_input.pixels for file in files]
    if not found:
        raise click.UsageError("the folder holds no file")
    return found


def _list(found: Sequence[Tuning], as_json: bool) -> None:
    if as_json:
        print_json({"machine": machine_here().key, "tuning": [each.document for each in found]})
        return
    if not found:
        click.echo("Nothing was measured.")
    for each in found:
        click.echo(f"Key {each.machine.key}")
        _print(each)


def _print(tuning: Tuning) -> None:
    rows = [
        [
            each.way.title,
            f"{each.milliseconds:.2f}",
            f"{each.ratio:.2f} ({each.low:.2f} to {each.high:.2f})",
            "chosen" if each.way == tuning.chosen else "",
        ]
        for each in tuning.measured
    ]
    print_table(
        f"One image, {tuning.findings} findings, {tuning.rounds} rounds over {tuning.images} images, on "
        f"{tuning.machine.processor}, {tuning.machine.cores} cores",
        ["way", "ms, median", "share of the first one's time (quartiles)", ""],
        rows,
        right=(1,),
    )
    for each in tuning.left_out:
        click.echo(f"Left out: {each.way.title}: {each.reason}")
    click.echo(f"{tuning.reason}.")
    if tuning.stale:
        click.echo(f"It is not followed here: {tuning.stale}.")
