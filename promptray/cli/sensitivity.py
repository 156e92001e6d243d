"""``promptray sensitivity``."""

from __future__ import annotations

from pathlib import Path

import click

from promptray.cli.output import json_option, print_json, print_table, progress
from promptray.cli.threads import ScoringCommand

_PATH = click.Path(path_type=Path)
_REPORT, _PAGE, _PLOT = "sensitivity.json", "sensitivity.html", "sensitivity.svg"


@click.command("sensitivity", cls=ScoringCommand)
@click.argument("recipe", type=_PATH)
@click.option(
    "--graph",
    "graphs",
    multiple=True,
    metavar="NAME",
    help="image or head:NAME, may be repeated (default: all that the recipe quantises by layers).",
)
@click.option("-o", "--output", type=_PATH, help=f"New folder for {_REPORT}, {_PAGE} and {_PLOT}.")
@click.option("--cache", type=_PATH, help="Folder of finished stages (default: user cache).")
@json_option
def command(
    recipe: Path, graphs: tuple[str, ...], output: Path | None, cache: Path | None, as_json: bool
) -> None:
    """Rank the layers of a recipe's model by what quantising them, one group at a time, does to the scores.

    The recipe needs the section quantise with its calibration images, and no gate: nothing is judged and no
    bundle is written. Names of groups can be written under keep of a scheme; with search in the recipe,
    `promptray build` chooses them itself. A run that was killed goes on when it is called again.

    \b
    Examples:
      promptray sensitivity recipe.yaml
      promptray sensitivity recipe.yaml --graph image -o ranking
      promptray sensitivity recipe.yaml --graph head:findings --json
    \b
    The recipe says (docs/quantisation.md):
      quantise:
        image: {scheme: int8-qdq}
        calibration: {images: films, labels: calibration.csv, source: our films of 2025}
    """
    from promptray.cli.extras import require_extra

    require_extra("export")
    import msgspec

    from promptray.calibrate.output_folder import OutputFolder
    from promptray.calibrate.pipeline.sensitivity import rank_layers
    from promptray.calibrate.quantise.sensitivity_report import bars, sensitivity_page

    target = OutputFolder(output, [_REPORT, _PAGE, _PLOT]) if output else None
    with progress(f"ranking the layers of {recipe.name}") as report:
        found = rank_layers(recipe, graphs=graphs, cache=cache, progress=report)
    if target:
        target.write(
            {
                _REPORT: msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n",
                _PAGE: sensitivity_page(found).encode(),
                _PLOT: bars(found.sensitivity, standalone=True).encode(),
            }
        )
    if as_json:
        print_json(msgspec.to_builtins(found))
        return
    section = found.sensitivity.table()
    print_table(section.title, section.columns, section.rows, right=(1, 2, 3, 4, 5))
    worst = found.sensitivity.groups[0]
    click.echo(
        f"Most sensitive: {worst.group}; the finding it moves most is {found.findings[worst.worst_finding]}. "
        "Whether a quantised model may be used is for a gate to say."
    )
