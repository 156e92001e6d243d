"""``promptray score``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click

from promptray.cli.image_files import image_files
from promptray.cli.output import (
    bundle_argument,
    head_option,
    no_site_option,
    prepare_option,
    print_json,
    print_refusal,
    progress,
    reduced_decode_option,
    refuse,
    reproducible_option,
    require_decoded_here,
    site_choice,
    site_option,
    visible,
)
from promptray.cli.overlays import Overlays
from promptray.cli.score_table import print_results
from promptray.cli.threads import ScoringCommand, threads_option
from promptray.runtime.finding_names import FindingName
from promptray.runtime.heads import require_head
from promptray.runtime.result import Refused
from promptray.runtime.scorer import Scorer


@click.command("score", cls=ScoringCommand)
@bundle_argument
@click.argument("images", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document per image, one per line.")
@click.option("--modality", help="Modality of inputs that state none (PNG, JPEG), for example CR or DX.")
@click.option("--frame", type=click.IntRange(1), help="Frame of multi-frame objects, counted from 1.")
@click.option("--strict", is_flag=True, help="Refuse images whose tags are absent, instead of noting it.")
@click.option(
    "--heatmaps", type=click.Path(path_type=Path), help="Folder for overlay PNGs, original resolution."
)
@click.option("--finding", "findings", multiple=True, help="Only these findings in overlays (default: all).")
@click.option(
    "--backend", default="auto", show_default=True, help="Backend; the result says which ran and why."
)
@prepare_option
@reduced_decode_option
@threads_option
@reproducible_option
@head_option
@site_option
@no_site_option
@click.pass_context
def command(context: click.Context, bundle: str, images: tuple[Path, ...], **options: Any) -> int:
    """Score images (DICOM, PNG or JPEG files, or folders of them) against every finding.

    Scores are raw logits: they rank images, they are not probabilities. Where this site has calibrated a
    finding (`promptray calibrate`), its probability and flag stand beside them.
    An image that is refused gets no score; the others are still scored, and the exit code is 1.

    \b
    Examples:
      promptray score chest.bundle film.dcm
      promptray score chest.bundle *.png --modality DX --json > scores.jsonl
      promptray score chest.bundle film.dcm --heatmaps maps --finding pneumonia
    """
    files = list(image_files(images))
    if not files:
        raise click.UsageError("the folder holds no file")
    if (options["findings"] or options["head"]) and not options["heatmaps"]:
        raise click.UsageError("--finding and --head choose among overlays: they need --heatmaps")
    require_decoded_here(options)
    declared = {name: options[name] for name in ("modality", "frame") if options[name] is not None}
    as_json, results, refused = options["as_json"], [], 0
    with Scorer.open(
        bundle,
        backend=options["backend"],
        site=site_choice(options["site"], options["no_site"]),
        threads=options["threads"],
        reproducible=options["reproducible"],
        strict=options["strict"],
        prepare=options["prepare"],
        reduced_decode=options["reduced_decode"],
    ) as scorer:
        # A finding that is unknown, or needs its head named, is refused before the first image, not after it.
        findings = _findings(scorer, options["findings"], options["head"])
        overlays = Overlays(options["heatmaps"], findings) if options["heatmaps"] else None
        try:
            with nullcontext(_silent) if as_json else progress("scoring") as report:
                for number, outcome in enumerate(scorer.score_many(files, **declared)):
                    report("score", f"{number + 1} of {len(files)}", (number + 1) / len(files))
                    if isinstance(outcome, Refused):
                        refused += 1
                        _print_refused(outcome, as_json)
                        continue
                    if as_json:
                        print_json(outcome.to_json())
                    else:
                        results.append(outcome)
                    if overlays:
                        overlays.write(scorer, outcome, files[number], declared)
        finally:  # whatever stops the batch, what was scored is shown
            if results:
                print_results(results)
    if refused:
        click.echo(f"{refused} of {len(files)} images were refused and have no score.", err=True)
    return 1 if refused or (overlays and overlays.failed) else 0


def _findings(scorer: Scorer, keys: Sequence[str], head: str | None) -> list[FindingName]:
    """Return the findings that overlays are wanted of: by default all that have a map, if any has."""
    named = scorer.prompts.state.by_name
    if head is not None:
        require_head(scorer.bundle.manifest, head)
    if keys:
        chosen: list[FindingName] = [key if head is None else (head, key) for key in keys]
        for name in chosen:
            named.find(name)
        return chosen
    own = {name: item.finding.head for name, item in named.items() if head in (None, item.finding.head)}
    mapped = [each.name for each in scorer.bundle.manifest.heads if each.map is not None]
    return [name for name, of in own.items() if of in mapped] or list(own)


def _silent(stage: str, message: str, fraction: float) -> None:
    """Report nothing."""


def _print_refused(outcome: Refused, as_json: bool) -> None:
    error = outcome.error
    if as_json:
        print_refusal(error, outcome.name)
    else:
        click.echo(f"{visible(outcome.name)}: no score", err=True)
        refuse(error)
