"""``promptray compare``."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptray.cli.compare_table import print_comparison
from promptray.cli.finite_range import FiniteRange
from promptray.cli.label_options import read_label_options, table_options
from promptray.cli.output import (
    head_option,
    json_option,
    no_site_option,
    print_json,
    progress,
    site_choice,
    site_option,
)
from promptray.cli.threads import ScoringCommand, threads_option

if TYPE_CHECKING:
    from promptray.calibrate.comparison import Side
    from promptray.calibrate.tables.image_folder import ImageFolder
    from promptray.calibrate.tables.labels import Labels

_PATH = click.Path(path_type=Path)
_RATE = FiniteRange(0, 1)


@click.command("compare", cls=ScoringCommand)
@click.argument("first", metavar="A", type=_PATH)
@click.argument("second", metavar="B", type=_PATH)
@click.option("--images", type=_PATH, help="Folder of the images; needed where A or B is a bundle.")
@click.option("--labels", type=_PATH, help="CSV as for evaluate: AUROC, and intervals over patients.")
@table_options
@click.option("--max-delta", type=FiniteRange(0), help="Bound on every difference of a score.")
@click.option("--min-spearman", type=FiniteRange(-1, 1), help="Bound on each finding's rank correlation.")
@click.option("--max-flips", type=_RATE, help="Bound on the share of images that change sides.")
@click.option("--max-auroc-loss", type=_RATE, help="Bound on the loss of the mean AUROC, A less B.")
@click.option(
    "--max-class-auroc-loss", type=_RATE, help="Bound on the loss of every labelled finding's AUROC."
)
@click.option(
    "--reference-rate",
    type=FiniteRange(0, 1, min_open=True, max_open=True),
    default=0.1,
    show_default=True,
    help="Without a threshold stored with A, flips are counted at the score of A that this share of images "
    "reaches.",
)
@click.option("--modality", help="Modality of images that state none (PNG, JPEG), for example DX.")
@click.option("--strict", is_flag=True, help="Refuse images whose tags are absent, instead of noting it.")
@click.option("--backend", default="auto", show_default=True, help="Backend of both bundles.")
@threads_option
@head_option
@click.option("--reference-head", metavar="NAME", help="Head of A, where it is another than B's.")
@site_option
@no_site_option
@json_option
def command(
    first: Path,
    second: Path,
    images: Path | None,
    labels: Path | None,
    as_json: bool,
    reference_rate: float,
    **options: Any,
) -> int:
    """Compare B with A, each a bundle or a CSV of scores (file, finding, score), on the same images.

    A bound that is stated must hold with its whole interval, each end of which is a one-sided 95 % limit, as
    in the gates of a build; one that is broken or inconclusive makes the exit code 1, and so does an image
    that a bundle refuses.

    \b
    Examples:
      promptray compare fp32.bundle int8.bundle --images films --modality DX --min-spearman 0.99
      promptray compare chest.bundle reference.csv --images films --modality DX --max-delta 2e-5
    """
    import msgspec

    from promptray.calibrate.compare import SETTINGS
    from promptray.calibrate.compare_bounds import Bounds
    from promptray.calibrate.comparison import compare_sides
    from promptray.calibrate.tables.image_folder import ImageFolder

    if not images and not (first.is_file() and second.is_file()):
        raise click.UsageError("a bundle needs --images, the folder of the images")
    names = ("max_delta", "min_spearman", "max_flips", "max_auroc_loss", "max_class_auroc_loss")
    bounds = Bounds(**{name: options[name] for name in names})
    if not labels and (bounds.max_auroc_loss is not None or bounds.max_class_auroc_loss is not None):
        raise click.UsageError("a bound on AUROC needs --labels")
    with ExitStack() as stack, progress("comparing") as bar:
        sides = _side(first, options, stack), _side(second, options, stack)
        folder = ImageFolder(images) if images else None
        report = compare_sides(
            *sides,
            folder=folder,
            head=options["head"],
            reference_head=options["reference_head"],
            labels=_labels(labels, sides, folder, options) if labels else None,
            modality=options["modality"],
            settings=replace(SETTINGS, **{name: options[name] for name in ("uncertain", "draws", "seed")}),
            reference_rate=reference_rate,
            bounds=bounds,
            progress=bar,
        )
    if as_json:
        print_json(msgspec.to_builtins(report))
    else:
        print_comparison(report)
    refused = len(report.first.refused) + len(report.second.refused)
    if refused:
        click.echo(f"{refused} scores are missing: images were refused.", err=True)
    return 0 if report.passed and not refused else 1


def _side(path: Path, options: dict[str, Any], stack: ExitStack) -> Side:
    from promptray.calibrate.tables.scores import read_scores
    from promptray.runtime.scorer import Scorer

    if path.is_file():
        return read_scores(path)
    return stack.enter_context(
        Scorer.open(
            path,
            backend=options["backend"],
            site=site_choice(options["site"], options["no_site"]),
            threads=options["threads"],
            strict=options["strict"],
        )
    )


def _labels(
    path: Path, sides: tuple[Side, Side], folder: ImageFolder | None, options: dict[str, Any]
) -> Labels:
    """Read the labels of whatever either side scores, its images named as the sides name them."""
    from promptray.calibrate.comparison import heads_of
    from promptray.calibrate.score_images import locate

    heads = heads_of(*sides, options["head"], options["reference_head"])
    keys = {key for side, head in zip(sides, heads, strict=True) for key in _keys(side, head)}
    labels = read_label_options(path, keys, options)
    return locate(labels, folder, options["missing"]) if folder else labels


def _keys(side: Side, head: str | None) -> list[str]:
    from promptray.calibrate.tables.scores import ScoreTable
    from promptray.runtime.heads import require_head

    if isinstance(side, ScoreTable):
        return list(side.keys)
    chosen = require_head(side.bundle.manifest, head)
    return [finding.key for finding in side.prompts.of_head(chosen.name)]
