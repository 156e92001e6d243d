"""``promptray repack``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click
import msgspec

from promptray.cli.output import bundle_argument, json_option, print_json, progress, site_choice, site_option


@click.command("repack")
@bundle_argument
@site_option
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Bundle directory to make."
)
@json_option
def command(bundle: str, site: str | None, output: Path, as_json: bool) -> None:
    """Make a new bundle of a bundle and what a site changed of its findings.

    Findings added at the site are shipped by the new bundle with their cached encodings, removed ones are
    left out. Golden answers of added ones are computed on this machine. A bundle of quantised or distilled
    graphs is refused: its gates were held with its own findings, so change the recipe and build it.
    Calibrations stay in the site directory, which then holds them for the new bundle, too. Engines built on
    this device stay with the old bundle: build them for the new one with `promptray engine`.

    \b
    Examples:
      promptray prompts chest.bundle add "rib fracture" "There is rib fracture."
      promptray repack chest.bundle -o chest-2.bundle
      promptray repack chest.bundle --site /srv/promptray -o chest-2.bundle --json
    """
    from promptray.export.repack import repack

    with progress(f"repacking {output.name}") as report:
        made = repack(bundle, output, site=site_choice(site), progress=report)
    if as_json:
        print_json(
            {
                "bundle": str(output),
                "sha256": made.bundle.hash,
                "findings": len(made.bundle.manifest.findings),
                "repacked": msgspec.to_builtins(made.step),
                "groups_left_out": made.groups,
                "calibrations_carried": made.calibrated,
                "calibrations_left": made.uncalibrated,
                "engines_left": made.engines,
                "plans": [asdict(plan) for plan in made.plans],
            }
        )
        return
    manifest, step = made.bundle.manifest, made.step
    click.echo(f"{output}: {manifest.name}, {len(manifest.findings)} findings, sha256 {made.bundle.hash}")
    for what, keys in (
        ("added", step.added),
        ("left out", step.removed),
        ("groups left out with a finding of theirs", made.groups),
        ("calibrations that this site now has for the new bundle, too", made.calibrated),
        ("calibrations that do not hold for the new bundle", made.uncalibrated),
        ("engines of the old bundle, which `promptray engine` builds for the new one", made.engines),
    ):
        if keys:
            click.echo(f"{what}: {', '.join(keys)}")
    for plan in made.plans:
        click.echo(f"plan {'kept' if plan.kept else 'left out'}: {plan.file}: {plan.why}")
    click.echo("Check it on the target machine with `promptray verify`.")
