"""``promptray gate-decode``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptray.cli.gate_images import (
    GateReports,
    labels_option,
    read_images,
    report_option,
    source_option,
)
from promptray.cli.named_path import NamedPath
from promptray.cli.output import (
    bundle_argument,
    json_option,
    print_json,
    print_table,
    progress,
    site_choice,
    site_option,
    visible,
)
from promptray.cli.threads import ScoringCommand, threads_option
from promptray.runtime.bundle import Bundle
from promptray.runtime.decode_gate import KIND, DecodeGate, read_gates
from promptray.runtime.site_choice import SiteChoice, open_site

if TYPE_CHECKING:
    from promptray.calibrate.decode_gate import Outcome


@click.command("gate-decode", cls=ScoringCommand)
@bundle_argument
@click.option("--images", type=NamedPath(path_type=Path), help="Folder of the site's own films.  [required]")
@labels_option
@source_option
@report_option
@click.option("--backend", default="auto", show_default=True, help="Backend that the gate shall hold for.")
@threads_option
@click.option("--list", "listed", is_flag=True, help="List the gates that were passed, and score nothing.")
@click.option("--remove", metavar="KEY", help="Remove a gate that was passed, and score nothing.")
@site_option
@json_option
def command(
    bundle: str, site: str | None, listed: bool, remove: str | None, as_json: bool, **options: Any
) -> None:
    """Show on films of yours that JPEG 2000 may be decoded at a lower resolution, or that it may not.

    Every film is scored whole and as --reduced-decode would, on this machine, and the gates of docs/gates.md
    are held between the two, with the bounds of fp16. Only films that are decoded at a lower resolution
    count; those of at least 299 patients are needed. A pass is kept in the site directory, and `promptray
    score --reduced-decode` needs it. It holds for this bundle, backend, precision and decoder, and larger
    films are halved no more often than these were. A refusal takes an earlier pass back.

    \b
    Examples:
      promptray gate-decode chest.bundle --images films
      promptray gate-decode chest.bundle --images films --labels films.csv --report gates
      promptray gate-decode chest.bundle --list
    """
    given = [name for name in ("images", "labels", "report", "threads") if options[name] is not None]
    removing = remove is not None
    if (listed or removing) and (given or (listed and removing)):
        raise click.UsageError("--list and --remove stand alone: they score nothing")
    choice = site_choice(site)
    if not (listed or removing):
        if options["images"] is None:
            raise click.UsageError("--images is required: a gate is held on films of yours")
        _gate(Path(bundle), choice, options, as_json)
        return
    opened = Bundle.open(bundle)
    local = open_site(choice, opened.hash)
    assert local is not None  # noqa: S101 - the command has no --no-site
    if remove is not None:
        local.remove(KIND, "", remove)
        print_json({"removed": remove}) if as_json else click.echo(f"Removed {remove}.")
        return
    found = read_gates(local, opened)
    if as_json:
        print_json({"decode": [each.document for each in found]})
    for each in [] if as_json else found:
        click.echo(visible(f"Key {each.scope.key}\n{sentence(each)}"))
    if not found and not as_json:
        click.echo("No gate was passed.")


def sentence(gate: DecodeGate) -> str:
    """Say what was passed, and whether it still holds."""
    said = f"Decoding at a lower resolution passed {gate.gate.title} on {gate.date}"
    scope = gate.scope
    times = f"at most {gate.halvings} halvings of a picture"
    held = f"{said}: {scope.gated_as}, {scope.precision}, {scope.decoder}; {times}."
    return f"{held} It does not hold here: {gate.stale}." if gate.stale else held


def _gate(bundle: Path, site: SiteChoice, options: dict[str, Any], as_json: bool) -> None:
    from promptray.calibrate.decode_gate import gate_decode

    reports = GateReports(options["report"], Bundle.open(bundle).manifest)
    with tempfile.TemporaryDirectory() as folder, progress("gating") as report:
        found = gate_decode(
            bundle,
            site,
            lambda opened: read_images(opened.manifest, options, Path(folder), report),
            backend=options["backend"],
            threads=options["threads"],
            progress=report,
            reported=reports.write,
        )
    _tell(found, as_json)


def _tell(found: Outcome, as_json: bool) -> None:
    import msgspec

    from promptray.calibrate.gates.report import sealed
    from promptray.calibrate.gates.table import sections

    if as_json:
        reports = {name: msgspec.to_builtins(sealed(each)) for name, each in found.reports.items()}
        print_json({**found.gate.document, "reports": reports})
        return
    for name, each in found.reports.items():
        table = sections(each)[0]
        print_table(f"{name}: {table.title}", table.columns, table.rows)
    click.echo(sentence(found.gate))
    click.echo(f"{found.gate.whole} other images are decoded whole all the same: they do not count.")
    click.echo("Use it: promptray score BUNDLE FILM --reduced-decode")
