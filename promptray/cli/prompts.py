"""``promptray prompts``."""

from __future__ import annotations

from pathlib import Path

import click

from promptray.cli.output import (
    head_option,
    json_option,
    print_json,
    print_table,
    site_choice,
    site_option,
    visible,
    written,
)
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.manifest import Code
from promptray.runtime.bundle.outside import require_outside
from promptray.runtime.disk import write_whole
from promptray.runtime.scorer import Scorer
from promptray.runtime.site import Site
from promptray.runtime.site_choice import open_site
from promptray.runtime.site_prompts import forget_finding, restore_finding


@click.group("prompts", invoke_without_command=False)
@click.argument("bundle", type=click.Path())
@click.pass_context
def command(context: click.Context, bundle: str) -> None:
    """List, add, remove, restore, import and export the findings of a bundle.

    A bundle never changes: what is added or removed is kept in the site directory of this machine.

    \b
    Examples:
      promptray prompts chest.bundle list
      promptray prompts chest.bundle add "rib fracture" "There is rib fracture."
      promptray prompts chest.bundle remove "rib fracture"
      promptray prompts chest.bundle export "rib fracture" -o rib.safetensors
      promptray prompts chest.bundle import rib.safetensors
    """
    context.obj = bundle


def _open(context: click.Context, site: str | None) -> Scorer:
    return Scorer.open(context.obj, site=site_choice(site))


def _site_of(context: click.Context, site: str | None) -> tuple[Bundle, Site]:
    """Open bundle and site without a scorer: what is removed need not be readable."""
    bundle = Bundle.open(context.obj)
    local = open_site(site_choice(site), bundle.hash)
    if local is None:
        raise click.UsageError("a site directory is needed")
    return bundle, local


@command.command("list")
@json_option
@site_option
@click.pass_context
def list_(context: click.Context, site: str | None, as_json: bool) -> None:
    """List the findings that are scored here, in order.

    \b
    Example:
      promptray prompts chest.bundle list --json
    """
    with _open(context, site) as scorer:
        active = scorer.prompts.state.active
        heads = scorer.bundle.manifest.heads
        notices = [item.to_json() for item in scorer.prompts.state.notices]
    if as_json:
        rows = [
            {
                "head": item.finding.head,
                "key": item.finding.key,
                "prompts": item.finding.prompts,
                "negative_prompts": item.finding.negative_prompts,
                "origin": item.origin,
            }
            for item in active
        ]
        print_json({"findings": rows, "notices": notices})
        return
    for head in heads:
        own = [item for item in active if item.finding.head == head.name]
        title = "Findings" if len(heads) == 1 else f"Findings of {head.name} ({head.set} set)"
        table = [[item.finding.key, written(item.finding), item.origin] for item in own]
        print_table(title, ["key", "prompt", "origin"], table)
    _print_notices(scorer)


def _print_notices(scorer: Scorer) -> None:
    """Say on stderr what makes the prompts less than they look: cut, empty, or alike."""
    for item in scorer.prompts.state.notices:
        click.echo(visible(f"Note [{item.code}] {item.message}"), err=True)


@command.command("add")
@click.argument("key", required=False)
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@click.option("--pack", help="Instead of KEY: every finding of a prompt pack (`promptray packs` lists them).")
@click.option("--negative", multiple=True, help="What KEY is asked against, where findings are pairs.")
@click.option("--display", help="Name for people (default: the key).")
@click.option(
    "--code", nargs=3, metavar="VALUE SCHEME MEANING", help="Coded concept, for example of SNOMED CT."
)
@click.option("--allow-empty", is_flag=True, help="Accept a prompt of which cleaning leaves nothing.")
@site_option
@click.pass_context
def add(
    context: click.Context,
    site: str | None,
    key: str | None,
    prompts: tuple[str, ...],
    pack: str | None,
    negative: tuple[str, ...],
    display: str | None,
    code: tuple[str, str, str] | None,
    allow_empty: bool,
) -> None:
    """Encode PROMPT (default: the bundle's templates filled with KEY) and keep it for this site.

    Several PROMPTs are averaged, by models that score ensembles.

    \b
    Examples:
      promptray prompts chest.bundle add "rib fracture" "There is rib fracture."
      promptray prompts clip.bundle add hernia "a photo of hernia" "hernia presented in image"
      promptray prompts chest.bundle add --pack chestxray14
    """
    if pack is not None:
        if key is not None:
            raise click.UsageError("give either KEY or --pack")
        if negative or display or code or allow_empty:
            raise click.UsageError("a pack brings its own wordings, names and codes")
        with _open(context, site) as scorer:
            added = scorer.prompts.add_pack(pack, keep=True)
        click.echo(f"Added the {len(added)} findings of {pack}")
        _print_notices(scorer)
        return
    if key is None:
        raise click.UsageError("give a KEY, or a --pack")
    coded = Code(value=code[0], scheme=code[1], meaning=code[2]) if code else None
    with _open(context, site) as scorer:
        finding = scorer.prompts.add(
            key,
            prompts or None,
            negative_prompt=negative,
            display=display,
            code=coded,
            keep=True,
            allow_empty=allow_empty,
        )
    click.echo(f"Added {finding.key!r}: {written(finding)}")
    _print_notices(scorer)


@command.command("remove")
@click.argument("key")
@head_option
@site_option
@click.pass_context
def remove(context: click.Context, site: str | None, key: str, head: str | None) -> None:
    """Stop scoring KEY at this site.

    \b
    Example:
      promptray prompts chest.bundle remove "rib fracture"
    """
    bundle, local = _site_of(context, site)
    forget_finding(local, bundle.manifest, key, head=head)
    click.echo(f"Removed {key!r} at this site.")


@command.command("restore")
@click.argument("key")
@head_option
@site_option
@click.pass_context
def restore(context: click.Context, site: str | None, key: str, head: str | None) -> None:
    """Score KEY of the bundle again after it was removed at this site.

    \b
    Example:
      promptray prompts chest.bundle restore pneumonia
    """
    bundle, local = _site_of(context, site)
    restore_finding(local, bundle.manifest, key, head=head)
    click.echo(f"Restored {key!r} at this site.")


@command.command("export")
@click.argument("keys", nargs=-1)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="File to write.")
@head_option
@site_option
@click.pass_context
def export(
    context: click.Context, site: str | None, keys: tuple[str, ...], output: Path, head: str | None
) -> None:
    """Write the cached prompts of KEYS (default: all) to a file, for a machine with the same model.

    They are those of one head, by default of the one that prompts can be added to.

    \b
    Example:
      promptray prompts chest.bundle export "rib fracture" -o rib.safetensors
    """
    require_outside(output)
    with _open(context, site) as scorer:
        data = scorer.prompts.export(keys or None, head=head)
    try:
        write_whole(output, data)
    except OSError as error:
        raise click.ClickException(f"{output.name} cannot be written: {error.strerror}") from error
    click.echo(f"Wrote {output.name}, {len(data) / 1e3:.0f} kB")


@command.command("import")
@click.argument("file", type=click.Path(path_type=Path))
@site_option
@click.pass_context
def import_(context: click.Context, site: str | None, file: Path) -> None:
    """Add the prompts of a file written by `export` with the same model; needs no text graph.

    \b
    Example:
      promptray prompts chest.bundle import rib.safetensors
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise click.ClickException(f"{file.name} cannot be read: {error.strerror}") from error
    with _open(context, site) as scorer:
        added = scorer.prompts.import_(data, keep=True, artefact=file.name)
    click.echo(f"Imported {', '.join(repr(finding.key) for finding in added)}")
    _print_notices(scorer)
