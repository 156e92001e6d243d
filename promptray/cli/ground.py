"""``promptray ground``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

import click
import msgspec

from promptray.cli.output import (
    bundle_argument,
    head_option,
    json_option,
    no_site_option,
    print_json,
    print_table,
    site_choice,
    site_option,
)
from promptray.cli.threads import ScoringCommand
from promptray.runtime.errors import PromptError
from promptray.runtime.grounding import GroundingDocument, ground
from promptray.runtime.heads import require_head
from promptray.runtime.region import Extent
from promptray.runtime.scorer import Scorer

_EXTENT = re.compile(r"(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)")


class _ExtentType(click.ParamType):
    """``FROM:TO``, in pixels."""

    name = "FROM:TO"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Extent:
        found = _EXTENT.fullmatch(value)
        if found is None:
            self.fail(f"{value!r} is not FROM:TO in pixels, for example 100:300", param, ctx)
        return float(found[1]), float(found[2])


@click.command("ground", cls=ScoringCommand)
@bundle_argument
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--rows", type=_ExtentType(), required=True, help="Rows of the region on the original image.")
@click.option("--columns", type=_ExtentType(), required=True, help="Its columns.")
@click.option("--sentence", "sentences", multiple=True, help="Ask about this, too; it is not kept.")
@click.option("--modality", help="Modality of an input that states none (PNG, JPEG), for example CR or DX.")
@click.option("--frame", type=click.IntRange(1), help="Frame of a multi-frame object, counted from 1.")
@click.option("--strict", is_flag=True, help="Refuse an image whose tags are absent, instead of noting it.")
@head_option
@site_option
@no_site_option
@json_option
def command(bundle: str, image: Path, as_json: bool, **options: Any) -> int:
    """Ask one region of one image about every finding: the finding's map, pooled over the region.

    For ASG's prompts this is the cosine of the region with the sentence, as the model was trained to align
    them; for any other head no more than the mean of its map. Values compare regions; they are no
    probabilities.

    \b
    Examples:
      promptray ground asg.bundle film.dcm --rows 900:1400 --columns 300:800
      promptray ground asg.bundle film.png --modality DX --rows 90:140 --columns 30:80 \\
          --sentence "right pleural effusion" --json
    """
    if not all(sentence.strip() for sentence in options["sentences"]):
        raise click.UsageError("--sentence: it is empty")
    declared = {name: options[name] for name in ("modality", "frame") if options[name] is not None}
    site = site_choice(options["site"], options["no_site"])
    with Scorer.open(bundle, site=site, strict=options["strict"]) as scorer:
        manifest = scorer.bundle.manifest
        if options["head"] is not None:
            asked = require_head(manifest, options["head"])
            if options["sentences"] and asked.set != "free":
                raise click.UsageError(f"--sentence: the set of the head {asked.name} is fixed")
        _add_sentences(scorer, options["sentences"])
        document = ground(
            scorer.score(image, **declared),
            manifest,
            rows=options["rows"],
            columns=options["columns"],
            heads=None if options["head"] is None else [options["head"]],
        )
    if as_json:
        print_json(msgspec.to_builtins(document))
    else:
        _print(document)
    return 0


def _add_sentences(scorer: Scorer, sentences: Sequence[str]) -> None:
    """Ask about sentences for this session, under names that no finding has."""
    manifest, free = scorer.bundle.manifest, scorer.bundle.manifest.free_head
    if sentences and free is not None and free.relation == "pair":
        raise PromptError(
            "prompt.invalid",
            "this bundle asks each finding against its negative, and a sentence alone has none",
            artefact=f"{manifest.name}, head {free.name}",
            cure="add it as a finding, then ask without --sentence: "
            "`promptray prompts BUNDLE add KEY SENTENCE --negative SENTENCE`",
        )
    taken = {finding.key for finding in scorer.prompts}
    names = (name for name in map("sentence {}".format, count(1)) if name not in taken)
    for sentence, name in zip(sentences, names, strict=False):
        scorer.prompts.add(name, sentence)


def _print(document: GroundingDocument) -> None:
    rows, columns = ("{:g} to {:g}".format(*extent) for extent in (document.rows, document.columns))
    for head in document.heads:
        values = sorted(
            (each for each in document.findings if each.head == head.name), key=lambda each: -each.value
        )
        print_table(
            f"{document.source.name}, rows {rows}, columns {columns}, head {head.name}: {head.kind}",
            ["finding", "value", "wording"],
            [[each.key, f"{each.value:.4f}", "; ".join(each.prompts)] for each in values],
            right=(1,),
        )
        click.echo(f"{head.kind}: {head.meaning}")
    if document.seen < 1:
        click.echo(f"The network saw {document.seen:.0%} of the region; the rest is cropped away.")
    for notice in document.notices:
        click.echo(f"Note [{notice.code}] {notice.message}")
