"""The report of the gates as rows for people: the same in text and in HTML."""

from __future__ import annotations

from promptray.calibrate.comparison_report import Flips
from promptray.calibrate.evaluation_report import Estimate
from promptray.calibrate.evaluation_table import Section
from promptray.calibrate.gates.report import FindingAgreement, Gate, GateName, GateReport

#: What each gate asks, in words, and how its numbers are written.
WORDS: dict[GateName, tuple[str, str]] = {
    "auroc_loss": ("loss of the mean AUROC", ".4f"),
    "class_auroc_loss": ("AUROC loss, worst finding", ".4f"),
    "flips": ("decisions that flip, all findings", ".2%"),
    "finding_flips": ("decisions that flip, worst finding", ".2%"),
    "spearman": ("rank correlation, worst finding", ".5f"),
    "mean_delta": ("mean |Δlogit| in spreads, worst finding", ".2g"),
    "max_delta": ("max |Δlogit| in spreads", ".2g"),
    "batch_delta": ("max |Δlogit| between shapes of call, in spreads", ".2g"),
    "map_correlation": ("correlation of heat maps, worst finding", ".4f"),
    "map_overlap": ("overlap of the maps' top cells, worst finding", ".3f"),
}


def sections(report: GateReport) -> list[Section]:
    """Return every table of a report."""
    found = [_gates(report), _findings(report)]
    if report.not_run:
        rows = [[WORDS[each.name][0], each.finding or "all", each.reason] for each in report.not_run]
        found.insert(1, Section("Not held", ["gate", "finding", "reason"], rows))
    if report.disagreements:
        found.append(_disagreements(report))
    return found


def gate_text(report: GateReport) -> str:
    """Return the report as plain text: the verdict, the tables, the notes."""
    parts = [headline(report)]
    parts += [_aligned(section) for section in sections(report)]
    return "\n\n".join([*parts, "\n".join(report.notes)]) + "\n"


def headline(report: GateReport) -> str:
    """Return the verdict in one sentence."""
    said = {
        "passed": "passed",
        "refused": "REFUSED",
        "inconclusive": "INCONCLUSIVE, which is not passed",
    }[report.verdict]
    label_free = "" if report.labelled else " (label-free gates only)"
    return f"{report.candidate.name} against {report.original.name}: {said}{label_free}"


def unpassed(report: GateReport, name: str) -> list[str]:
    """Return a line for each gate that was not passed; `name` says whose they are."""
    lines = []
    for gate in report.gates:
        if gate.verdict == "passed":
            continue
        words, form = WORDS[gate.name]
        value = "not measured" if gate.value is None else f"{gate.value:{form}}"
        if gate.low is not None and gate.high is not None:
            value += f" ({gate.low:{form}} to {gate.high:{form}})"
        reason = f"; {gate.reason}" if gate.reason else ""
        finding = f" [{gate.finding}]" if gate.finding else ""
        lines.append(
            f"{name}: {words}{finding}: {value}, bound {gate.sense} {gate.bound:g}: {gate.verdict}{reason}"
        )
    return lines


def _gates(report: GateReport) -> Section:
    title = (
        f"Gates on {report.images} images of {report.patients} "
        f"{'patients' if report.clustered_by == 'patient' else 'patients (one per image)'}; "
        f"each end of an interval is a one-sided {(1 + report.confidence) / 2:.3g} limit"
    )
    columns = [
        "gate",
        "finding",
        "measured",
        "bound",
        "noise floor",
        "decisions (patients)",
        "verdict",
        "why",
    ]
    return Section(title, columns, [_gate(gate) for gate in report.gates])


def _gate(gate: Gate) -> list[str]:
    what, form = WORDS[gate.name]
    measured = "not measured" if gate.value is None else f"{gate.value:{form}}"
    if gate.low is not None and gate.high is not None:
        measured += f" ({gate.low:{form}} to {gate.high:{form}})"
    return [
        what,
        gate.finding or "all",
        measured,
        f"{'≤' if gate.sense == 'at most' else '≥'} {gate.bound:{form.replace('.2g', 'g')}}",
        "unknown" if gate.noise_floor is None else f"{gate.noise_floor:{form}}",
        f"{gate.decisions} ({gate.patients})",
        gate.verdict,
        gate.reason or "",
    ]


def _findings(report: GateReport) -> Section:
    columns = ["finding", "AUROC", "of candidate", "loss", "Spearman", "flips", "counted at", "max |Δ|"]
    columns += ["mean |Δ|", "bias"]
    columns += ["maps", "top cells"] if any(each.map_overlap for each in report.findings) else []
    rows = [_finding(each)[: len(columns)] for each in report.findings]
    return Section("Findings; differences in logits", columns, rows)


def _finding(found: FindingAgreement) -> list[str]:
    pair, flips = found.auroc, found.flips
    return [
        found.key,
        f"{pair.first:.3f}" if pair else "",
        f"{pair.second:.3f}" if pair else "",
        _said(pair.loss if pair else None, "+.4f"),
        _said(found.spearman, ".4f"),
        f"{flips.flips} of {flips.decisions} ({flips.low:.1%} to {flips.high:.1%})",
        _counted_at(flips),
        f"{found.max_delta:.3g}",
        f"{found.mean_delta:.3g}",
        f"{found.bias:+.3g}",
        _said(found.map_correlation, ".3f"),
        _said(found.map_overlap, ".3f"),
    ]


def _counted_at(flips: Flips) -> str:
    """Say at which threshold flips of one finding are counted, and whose it is."""
    whose = "stored" if flips.chosen == "stored" else "reference"
    return whose if flips.threshold is None else f"{flips.threshold:.4g} ({whose})"


def _disagreements(report: GateReport) -> Section:
    rows = [
        [
            str(each.image),
            (each.sha256 or "")[:12],
            each.finding,
            f"{each.original:.4g}",
            f"{each.candidate:.4g}",
        ]
        for each in report.disagreements
    ]
    columns = ["image", "sha256", "finding", "original", "candidate"]
    return Section("Largest disagreements, by number of the image", columns, rows)


def _said(estimate: Estimate | None, form: str) -> str:
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:{form}} (no interval)"
    return f"{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"


def _aligned(section: Section) -> str:
    rows = [section.columns, *section.rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([section.title, *(line.rstrip() for line in lines)])
