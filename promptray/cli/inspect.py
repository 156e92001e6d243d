"""``promptray inspect``."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from promptray.cli.engine_table import COLUMNS, engine_documents, engine_rows
from promptray.cli.output import (
    bundle_argument,
    json_option,
    no_site_option,
    print_json,
    print_table,
    site_choice,
    site_option,
    written,
)
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.manifest import Distilled, DistilledText, Manifest, Provenance
from promptray.runtime.bundle.parity import read_parity
from promptray.runtime.decode_gate import read_gates
from promptray.runtime.engines.sources import source_sets
from promptray.runtime.engines.store import EngineStore
from promptray.runtime.site_calibration import facts, site_calibrations
from promptray.runtime.site_choice import SiteChoice, open_site
from promptray.runtime.tuning import read_tunings


@click.command("inspect")
@bundle_argument
@site_option
@no_site_option
@json_option
def command(bundle: str, site: str | None, no_site: bool, as_json: bool) -> None:
    """Show what a bundle holds: model, findings, gates passed, provenance, and what this site added.

    Checks the seal and the report it prints; `promptray verify` checks everything.

    \b
    Example:
      promptray inspect chest.bundle --json
    """
    opened = Bundle.open(bundle)
    found = _found(opened, site_choice(site, no_site))
    if as_json:
        print_json(found)
    else:
        _print(opened, found)


def _found(bundle: Bundle, site: SiteChoice) -> dict[str, Any]:
    manifest = msgspec.to_builtins(bundle.manifest)
    parity = msgspec.to_builtins(read_parity(bundle))
    added: dict[str, Any] | None = None
    local = open_site(site, bundle.hash)
    if local is not None:
        added = {
            "revision": local.revision,
            "prompts": [
                {"head": entry.head, "key": entry.key, **entry.facts} for entry in local.entries("prompt")
            ],
            "calibrations": [facts(each) for each in site_calibrations(local, bundle.manifest).values()],
            "removed": [{"head": entry.head, "key": entry.key} for entry in local.entries("removed-prompt")],
            "engines": engine_documents(EngineStore(local, bundle.manifest)),
            "tuning": [each.document for each in read_tunings(local).values()],
            "decode": [each.document for each in read_gates(local, bundle)],
        }
    return {"sha256": bundle.hash, "manifest": manifest, "parity": parity, "site": added}


def _print(bundle: Bundle, found: dict[str, Any]) -> None:
    manifest, parity, added = bundle.manifest, found["parity"], found["site"]
    provenance = manifest.provenance
    rows = [
        ["name, family", f"{manifest.name}, {manifest.family}"],
        ["sha256", bundle.hash],
        ["intended use", manifest.model.intended_use],
        ["training data", manifest.model.training_data],
        ["model licence", manifest.model.licence],
        [
            "door",
            f"modalities {', '.join(manifest.door.modalities)}; at least {manifest.door.minimum_side} px",
        ],
        ["made", provenance.created],
        ["checkpoint", f"{provenance.checkpoint.name}, sha256 {provenance.checkpoint.sha256}"],
        *_student(provenance),
        *_repacked(provenance),
        ["libraries", ", ".join(f"{name} {version}" for name, version in provenance.libraries.items())],
        [
            "size",
            f"{sum(item.size for item in manifest.files.values()) / 1e6:.1f} MB, {len(manifest.files)} files",
        ],
    ]
    rows += [
        [f"graph {g.title}", f"{g.precision}, gated on {', '.join(g.consumers)} ({g.file})"]
        for g in manifest.graphs
    ]
    print_table("Bundle", ["", ""], rows)
    for head in parity["heads"]:
        _print_gates(bundle, parity, head)
    _print_changed(bundle, parity)
    _print_sources(manifest, parity)
    if parity["notes"]:
        print_table("What the build assumed", [""], [[note] for note in parity["notes"]])
    for each in manifest.heads:
        findings = [
            [finding.key, written(finding), finding.code.value if finding.code else ""]
            for finding in manifest.findings_of(each.name)
        ]
        title = f"Findings of {each.name}: {each.set} set, {each.relation}"
        print_table(title, ["key", "prompt", "code"], findings)
    if added is None:
        return
    if added["engines"]:
        print_table("Engines", COLUMNS, engine_rows(added["engines"]))
    for each in added["tuning"]:
        click.echo(f"Times on {each['key']}: {each['reason']}.")
    if added["decode"]:
        rows = [_decode_row(each) for each in added["decode"]]
        print_table("JPEG 2000 at a lower resolution", ["key", "gate", "of", "still holds"], rows)
    kept = [[item["head"], item["key"], "added here"] for item in added["prompts"]]
    kept += [[item["head"], item["key"], "removed here"] for item in added["removed"]]
    kept += [
        [item["head"], item["calibration"]["finding"], _calibrated(item)] for item in added["calibrations"]
    ]
    changes = f"{len(kept)} changes" if kept else "no change of findings"
    click.echo(f"Site revision {added['revision']}: {changes}.")
    if kept:
        print_table("Site", ["head", "key", ""], kept)


def _print_sources(manifest: Manifest, parity: dict[str, Any]) -> None:
    """Print what engines are compiled from, what was proved of it, and the engines that travel ready made."""
    if manifest.engines is None:
        return
    proved = {(each["precision"], each["opset"]): each for each in parity["sources"]}
    rows = []
    for each in source_sets(manifest):
        held = proved.get((each.precision, each.opset))
        off = "runs as it is" if held is None else "; ".join(map(_off_by, held["heads"]))
        files = "\n".join(source.file for source in each.sources)
        rows.append([f"{each.precision}, opset {each.opset}", files, off])
    print_table(
        "What engines are compiled from, computed as it is written; engines are gated on their device",
        ["set", "graphs", "golden answers"],
        rows,
    )
    plans = [
        [each.file, f"{each.flavour} {each.version}", ", ".join(each.targets)]
        for each in manifest.engines.plans
    ]
    if plans:
        print_table("Engines built ahead of time", ["plan", "built by", "compute capability"], plans)


def _off_by(head: dict[str, Any]) -> str:
    maps = "" if head["map_error"] is None else f", maps {head['map_error']:.2g}"
    return f"{head['head']}: scores {head['score_error']:.2g} of {head['score_tolerance']:.2g}{maps}"


def _student(provenance: Provenance) -> list[list[str]]:
    """Say whose tower and text side were replaced by what, and what that learned from."""
    return [*_image_student(provenance.distilled), *_text_student(provenance.distilled_text)]


def _text_student(text: DistilledText | None) -> list[list[str]]:
    if text is None:
        return []
    blocks = f"{text.layers} of {text.teacher_layers} blocks of the checkpoint's text encoder"
    return [
        ["text side", f"{blocks}, for prompts that are added, sha256 {text.weights}"],
        ["its teacher", f"text side and its head, sha256 of their weights {text.teacher}"],
        ["distilled on", f"{text.wordings} wordings, sha256 with those held out {text.wordings_sha256}"],
    ]


def _image_student(student: Distilled | None) -> list[list[str]]:
    if student is None:
        return []
    images = student.images
    return [
        [
            "student",
            f"{student.student} in the place of the checkpoint's image tower, sha256 {student.weights}",
        ],
        ["its teacher", f"image side and heads of the checkpoint, sha256 of their weights {student.teacher}"],
        ["distilled on", f"{images.images} images, sha256 {images.sha256}: {images.source}"],
    ]


def _repacked(provenance: Provenance) -> list[list[str]]:
    """Say which bundles and sites this one was made of, the oldest first."""
    rows = []
    for step in provenance.repacked:
        named = {"added": step.added, "left out": step.removed}
        changes = "; ".join(f"{what} {', '.join(keys)}" for what, keys in named.items() if keys)
        rows.append(["repacked", f"from {step.bundle}, site revision {step.site_revision}: {changes}"])
    return rows


def _decode_row(gate: dict[str, Any]) -> list[str]:
    scope = gate["scope"]
    of = f"{scope['gated_as']}, {scope['precision']}, {scope['decoder']}"
    return [
        gate["key"],
        f"{gate['gate_title']}, {gate['date']}",
        of,
        f"no: {gate['stale']}" if gate["stale"] else "yes",
    ]


def _calibrated(item: dict[str, Any]) -> str:
    made, point = item["calibration"], item["operating_point"]
    flagged = "no threshold" if point is None else f"flagged from logit {point['threshold']:+.4g}"
    return f"calibrated here on {made['date']}: {made['images']} images, {made['curve']['method']}, {flagged}"


def _print_gates(bundle: Bundle, parity: dict[str, Any], head: dict[str, Any]) -> None:
    quantised = any(graph.precision != parity["graphs"] for graph in bundle.manifest.graphs)
    before = ", before some were quantised," if quantised else ""
    against, map_bound = head["against_original"], head["map_tolerance"]
    compared = [(against["against"], against)]
    compared += [(f"noise: {item['varied']}", item) for item in head["noise"]]
    gates = [
        [name, *("" if item[key] is None else f"{item[key]:.2g}" for key in ("score_error", "map_error"))]
        for name, item in compared
    ]
    print_table(
        f"Gates that the fp32 graphs of {head['head']} passed{before} on {parity['backend']}: "
        f"{parity['images']} images x {head['findings']} findings, "
        f"bounds {head['score_tolerance']:g} (scores)"
        + ("" if map_bound is None else f", {map_bound:g} (maps)"),
        ["compared with", "largest score difference", "largest map difference"],
        gates,
        right=(1, 2),
    )


def _print_changed(bundle: Bundle, parity: dict[str, Any]) -> None:
    """Print what changed graphs were held against the original for, and how near a machine must come."""
    if not parity["gates"]:
        return
    rows = []
    for each in parity["gates"]:
        images, label_free = each["measured_on"], "" if each["labelled"] else ", label-free"
        changed = [(f"{graph['graph']} {graph['precision']}", graph) for graph in each["graphs"]]
        changed += [(f"bank {bank['head']} {bank['stored']}", bank) for bank in each["banks"]]
        rows.append(
            [
                f"{each['head']}: {each['of']}",
                each["consumer"],
                f"{each['verdict']} ({each['kind']}{label_free})",
                f"{images['images']} of {each['patients']} patients: {images['source']}",
                "\n".join(
                    f"{what}, {size['bytes_after'] / size['bytes_before']:.2f} of the original's size"
                    for what, size in changed
                ),
            ]
        )
    columns = ["what", "on", "verdict", "images", "changed"]
    distilled = bundle.manifest.provenance.distilled is not None
    original = "its teacher, the checkpoint in fp32" if distilled else "the fp32 original"
    print_table(f"Gates that changed graphs passed against {original}", columns, rows)
    for gated in bundle.manifest.gated:
        for head in gated.heads:
            maps = "" if head.map_tolerance is None else f", maps within {head.map_tolerance:.2g}"
            click.echo(
                f"On {gated.consumer}, golden scores of {head.head} within {head.score_tolerance:.2g} of the "
                f"gated ones{maps}."
            )
