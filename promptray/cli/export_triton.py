"""``promptray export-triton``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from promptray.cli.extras import require_onnx
from promptray.cli.output import bundle_argument, json_option, print_json, print_table, progress


@click.command("export-triton")
@bundle_argument
@click.option(
    "-o", "--output", required=True, type=click.Path(path_type=Path), help="Model repository to make."
)
@click.option("--name", help="Name of the ensemble that clients ask (default: made of the bundle's name).")
@click.option(
    "--max-batch",
    type=click.IntRange(1, 1024),
    default=8,
    show_default=True,
    help="Most images of a call; above 1 the server puts images of several requests together.",
)
@click.option(
    "--queue-delay",
    type=click.IntRange(0, 10_000_000),
    default=0,
    show_default=True,
    metavar="MICROSECONDS",
    help="How long an image may wait for others.",
)
@click.option(
    "--instances",
    type=click.IntRange(1, 256),
    default=1,
    show_default=True,
    help="Copies of each model, side by side.",
)
@click.option(
    "--threads",
    type=click.IntRange(1, 1024),
    help="Threads of one call (default: the server's, every core for every instance).",
)
@json_option
def command(bundle: str, output: Path, name: str | None, as_json: bool, **options: Any) -> None:
    """Write a model repository for NVIDIA Triton: image side, a model for each head, one ensemble.

    Clients send pixels as Scorer.prepare() makes them and get logits and maps of all findings at once; the
    prompt banks are inside the heads. Before anything is written, the models are run on every golden picture,
    alone and in batches. Findings that a site added are not in it: `promptray repack` first.

    \b
    Examples:
      promptray export-triton chest.bundle -o models
      promptray export-triton chest.bundle -o models --max-batch 16 --queue-delay 2000 --threads 4 --json
    """
    require_onnx()
    from promptray.export.triton.config import Serving
    from promptray.export.triton.repository import NAME, export_triton

    if name is not None and not NAME.fullmatch(name):
        raise click.UsageError("--name takes up to 64 letters, digits, _ and -, a letter or digit first")
    with progress(f"exporting {output.name}") as report:
        made = export_triton(bundle, output, name=name, serving=Serving(**options), progress=report)
    if as_json:
        print_json(
            {
                "repository": str(output),
                "ensemble": made.ensemble,
                "models": made.models,
                "bundle": made.bundle.hash,
                "serving": asdict(made.serving),
                "heads": [asdict(head) for head in made.heads],
            }
        )
        return
    click.echo(f"{output}: {', '.join(made.models)}; of bundle sha256 {made.bundle.hash}")
    print_table(
        "Golden pictures through the models as written",
        ["head", "findings", "score error", "allowed", f"change in a batch of {made.serving.max_batch}"],
        [
            [each.head, str(each.findings), f"{each.score_error:.2g}", f"{each.score_tolerance:g}",
             f"{each.batch_error:.2g}"]
            for each in made.heads
        ],
        right=(1, 2, 3, 4),
    )  # fmt: skip
    click.echo(f"Clients ask {made.ensemble}. A server was not run here: check its answers (docs/triton.md).")
