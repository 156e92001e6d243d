"""``promptray exam``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from promptray.cli.exam_table import print_exam
from promptray.cli.image_files import image_files
from promptray.cli.output import (
    bundle_argument,
    json_option,
    no_site_option,
    prepare_option,
    print_json,
    site_choice,
    site_option,
    visible,
)
from promptray.cli.threads import ScoringCommand, threads_option
from promptray.runtime.scorer import Scorer


@click.command("exam", cls=ScoringCommand)
@bundle_argument
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--view",
    "views",
    multiple=True,
    metavar="FILE=VIEW",
    help="View of an image whose tags state none, for example a.png=L-CC.",
)
@click.option("--modality", help="Modality of inputs that state none (PNG, JPEG), for example MG.")
@click.option("--frame", type=click.IntRange(1), help="Frame of multi-frame objects, counted from 1.")
@click.option("--strict", is_flag=True, help="Refuse images whose tags are absent, instead of noting it.")
@click.option(
    "--backend", default="auto", show_default=True, help="Backend; the result says which ran and why."
)
@prepare_option
@threads_option
@site_option
@no_site_option
@json_option
def command(
    bundle: str, images: tuple[Path, ...], views: tuple[str, ...], as_json: bool, **options: Any
) -> int:
    """Score the images of ONE examination together, by the rule that the bundle stores.

    Images (DICOM, PNG or JPEG files, or folders of them) are of one study. Views come from the tags, or from
    --view where no tag states one. Missing views are reported, and so is every image that does not
    enter. An image that is refused makes the exit code 1.

    \b
    Examples:
      promptray exam density.bundle study/
      promptray exam density.bundle a.png b.png --modality MG --view a.png=L-CC --view b.png=L-MLO --json
    """
    files = list(image_files(images))
    if not files:
        raise click.UsageError("the folder holds no file")
    labels = _labels(files, views)
    declared = {name: options[name] for name in ("modality", "frame") if options[name] is not None}
    with Scorer.open(
        bundle,
        backend=options["backend"],
        site=site_choice(options["site"], options["no_site"]),
        threads=options["threads"],
        strict=options["strict"],
        prepare=options["prepare"],
    ) as scorer:
        result = scorer.score_exam(files, views=labels, **declared)
    if as_json:
        print_json(result.to_json())
    else:
        print_exam(result)
    for image in result.left_out:
        click.echo(f"{visible(image.name)}: left out. [{image.code}] {visible(image.message)}", err=True)
    return 1 if any(image.refused for image in result.left_out) else 0


def _labels(files: Sequence[Path], views: Sequence[str]) -> list[str | None]:
    """Return what ``--view`` says of each file, named by its path or its base name."""
    labels: list[str | None] = [None] * len(files)
    for stated in views:
        name, _, label = stated.rpartition("=")
        places = [n for n, file in enumerate(files) if name in (str(file), file.name)]
        if not name or not label:
            raise click.UsageError(f"--view is FILE=VIEW, for example a.png=L-CC: {visible(stated)}")
        if len(places) != 1:
            raise click.UsageError(f"--view names {len(places)} of the images: {visible(name)}")
        if labels[places[0]] is not None:
            raise click.UsageError(f"--view names an image twice: {visible(name)}")
        labels[places[0]] = label
    return labels
