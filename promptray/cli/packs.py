"""``promptray packs``."""

from __future__ import annotations

import click
import msgspec

from promptray.cli.output import json_option, print_json, print_table
from promptray.runtime.packs import Pack, pack_names, read_pack


@click.command("packs")
@click.argument("name", required=False)
@json_option
def command(name: str | None, as_json: bool) -> None:
    """List the shipped prompt packs, or the findings of the pack NAME.

    \b
    Examples:
      promptray packs
      promptray packs chestxray14
      promptray prompts chest.bundle add --pack chestxray14
    """
    if name is not None:
        _show(read_pack(name), as_json)
        return
    packs = [read_pack(each) for each in pack_names()]
    if as_json:
        print_json(
            {"packs": [{"name": p.name, "title": p.title, "findings": len(p.findings)} for p in packs]}
        )
        return
    rows = [[pack.name, pack.title, pack.relation, str(len(pack.findings))] for pack in packs]
    print_table("Prompt packs", ["name", "title", "findings are", "findings"], rows, right=(3,))


def _show(pack: Pack, as_json: bool) -> None:
    if as_json:
        print_json(msgspec.to_builtins(pack))
        return
    rows = [
        [each.key, "; ".join(each.prompts), f"{each.code.value} ({each.code.scheme})" if each.code else "-"]
        for each in pack.findings
    ]
    print_table(pack.title, ["key", "wording", "code"], rows)
    for label in ("source", "licence", "note"):
        click.echo(f"{label.capitalize()}: {getattr(pack, label)}")
