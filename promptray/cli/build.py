"""``promptray build``."""

from __future__ import annotations

from pathlib import Path

import click

from promptray.cli.output import json_option, print_json, progress


@click.command("build")
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

    Stages that did not change are taken from the cache. A model that fails its gate is not written.

    \b
    Examples:
      promptray build recipe.yaml -o chest.bundle
      promptray build recipe.yaml -o chest.bundle --cache /scratch/promptray
    """
    from promptray.cli.extras import require_extra

    require_extra("export")
    from promptray.export.build import build

    with progress(f"building {output.name}") as report:
        bundle = build(recipe, output, cache=cache, progress=report)
    manifest = bundle.manifest
    if as_json:
        print_json({"bundle": str(output), "sha256": bundle.hash, "findings": len(manifest.findings)})
        return
    click.echo(
        f"{output}: {manifest.name} ({manifest.family}), {len(manifest.findings)} findings, "
        f"sha256 {bundle.hash}"
    )
    click.echo(
        "Gates passed are in `promptray inspect`; check it on the target machine with `promptray verify`."
    )
