"""``promptray build``."""

from __future__ import annotations

from pathlib import Path

import click

from promptray.cli.output import json_option, print_json, progress, visible
from promptray.cli.threads import ScoringCommand


@click.command("build", cls=ScoringCommand)
@click.argument("recipe", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Bundle directory to make."
)
@click.option(
    "--cache", type=click.Path(path_type=Path), help="Folder of finished stages (default: user cache)."
)
@json_option
def command(recipe: Path, output: Path, cache: Path | None, as_json: bool) -> None:
    """Build a bundle from a recipe: load, export, encode prompts, compare with the original, write.

    A recipe with the sections distil or quantise, and gate, gives a smaller bundle of graphs that passed
    their gates against the original; quantised ones are for this backend and class of machine. A model that
    fails a gate, or that too few images tell of, is not written. The reports are left in OUTPUT.gate either
    way: they point to single images, which the bundle does not. Stages that did not change are taken from
    the cache.

    \b
    Examples:
      promptray build recipe.yaml -o chest.bundle
      promptray build recipe.yaml -o chest.bundle --cache /scratch/promptray
    \b
    To quantise (docs/recipe.md), add to recipe.yaml:
      quantise:
        image: {scheme: int8-qdq}
        calibration: {images: films, labels: calibration.csv, source: our films of 2025}
      gate: {images: films, labels: gate.csv, source: our films of 2026}
    To put a small student in the place of the image tower:
      distil: {student: vit_tiny_patch16_224, images: more, source: our films of 2020 to 2024}
    """
    from promptray.cli.extras import require_extra

    require_extra("export")
    from promptray.calibrate.pipeline import build
    from promptray.export.stage_cache import default_cache, kept_bytes
    from promptray.runtime.bundle.parity import read_parity

    with progress(f"building {output.name}") as report:
        bundle = build(recipe, output, cache=cache, progress=report)
    for note in read_parity(bundle).notes:
        click.echo(f"Note: {visible(note)}", err=True)
    manifest, kept = bundle.manifest, cache or default_cache()
    size = f"{kept_bytes(kept) / 1e6:.0f} MB"
    click.echo(f"Finished stages are kept in {kept}: {size}, which may be deleted.", err=True)
    if as_json:
        gated = [each.consumer for each in manifest.gated]
        print_json(
            {
                "bundle": str(output),
                "sha256": bundle.hash,
                "findings": len(manifest.findings),
                "gated": gated,
            }
        )
        return
    click.echo(
        f"{output}: {manifest.name} ({manifest.family}), {len(manifest.findings)} findings, "
        f"sha256 {bundle.hash}"
    )
    for each in manifest.gated:
        nowhere = ", and run nowhere else" if "@" in each.consumer else ""
        click.echo(f"Its changed graphs passed their gates on {each.consumer}{nowhere}.")
    if manifest.gated:
        click.echo(
            f"Reports with plots and heat maps of single images: {output}.gate (keep it in the house)."
        )
    click.echo(
        "Gates passed are in `promptray inspect`; check it on the target machine with `promptray verify`."
    )
