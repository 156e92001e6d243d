"""``promptray families``."""

from __future__ import annotations

import click

from promptray.cli.output import json_option, print_json, print_table


@click.command("families")
@json_option
def command(as_json: bool) -> None:
    """List the model families, the checkpoint layout each one reads, and its options.

    \b
    Example:
      promptray families --json
    """
    from promptray.export.families import FAMILIES as known

    if as_json:
        print_json(
            [
                {
                    "name": item.name,
                    "aliases": list(item.aliases),
                    "summary": item.summary,
                    "layout": item.layout,
                    "options": dict(item.options),
                }
                for item in known
            ]
        )
        return
    rows = [
        [
            "\n".join((item.name, *item.aliases)),
            item.summary,
            item.layout,
            "\n".join(f"{key}: {text}" for key, text in item.options.items()),
        ]
        for item in known
    ]
    print_table("Families", ["name", "what", "checkpoint", "model_options"], rows)
