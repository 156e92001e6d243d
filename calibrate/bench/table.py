"""The report as rows for people: the same on the terminal and in HTML."""

from __future__ import annotations

from collections.abc import Iterator

from promptray.calibrate.bench.report import (
    Against,
    BenchReport,
    Gpu,
    LoadGen,
    Median,
    Scenario,
    SlaTerm,
    Sweep,
)
from promptray.calibrate.evaluation_table import Section

NOT_KNOWN = "not known"


def sections(report: BenchReport) -> Iterator[Section]:
    """Yield every table of a report."""
    yield _machine(report)
    if report.start:
        yield _start(report)
    for scenario in report.scenarios:
        yield _scenario(scenario)
        if scenario.stages:
            yield _stages(scenario)
        if scenario.server:
            yield _server(scenario)
    for found in report.loadgen:
        yield _loadgen(found)
    for sweep in report.sweeps:
        yield _sweep(sweep)
    if report.refused:
        rows = [[image.image, image.code] for image in report.refused]
        yield Section(f"Not measured: {len(rows)} images", ["image", "code"], rows)
    if report.sla:
        yield Section(
            "Service level", ["condition", "found", "met", ""], [_term(term) for term in report.sla]
        )
    if report.against:
        yield _against(report.against)


def facts(report: BenchReport) -> list[str]:
    """Return what a reader must know of the numbers."""
    protocol, backend = report.protocol, report.backend
    sizes = dict.fromkeys(f"{image.rows} x {image.columns} {image.kind}" for image in report.images)
    return [
        f"{report.software}, {report.created}",
        f"Bundle {report.bundle.name} ({report.bundle.family}, {report.bundle.sha256[:12]}), "
        f"{protocol.findings} findings",
        f"JPEG 2000 decoded with {protocol.decode_threads or 1} threads"
        f"{', at a lower resolution (reduced decode)' if protocol.reduced_decode else ''}"
        f"{'; fixed shapes (reproducible)' if protocol.reproducible else ''}",
        f"{backend.name} {backend.version} on {backend.device}, {backend.precision}, "
        f"{backend.threads} threads: {backend.reason}",
        f"{len(report.images)} images: {', '.join(list(sizes)[:6])}{', ...' if len(sizes) > 6 else ''}",
        f"Budget {protocol.budget_seconds:g} s; warm-up {protocol.warm_up} images; seed {protocol.seed}; "
        f"early stopping with {protocol.confidence:.0%} confidence, tolerance {protocol.tolerance:g}",
        *report.notes,
    ]


def _machine(report: BenchReport) -> Section:
    machine, after = report.machine, report.machine.after
    worked = machine.at_work[-1] if machine.at_work else after
    rows = [
        ["system", machine.system],
        ["CPU", f"{machine.cpu}, {machine.cores} cores, {machine.machine_class}"],
        ["governor", machine.governor or NOT_KNOWN],
        ["CPU clock", _number(worked.cpu_mhz, "MHz")],
        ["load before, after", f"{_number(machine.before.load_average)}, {_number(after.load_average)}"],
        ["GPU", _gpu(worked.gpu) if worked.gpu else f"{NOT_KNOWN}: {machine.gpu_unknown}"],
        ["throttled", NOT_KNOWN if machine.throttled is None else ", ".join(machine.throttled) or "no"],
        ["memory of the process, peak", _bytes(report.memory.peak_bytes)],
        ["memory of the GPU in use", _bytes(report.memory.gpu_bytes)],
    ]
    return Section("Machine", ["", ""], rows)


def _gpu(gpu: Gpu) -> str:
    return ", ".join(
        [gpu.name, _number(gpu.clock_mhz, "MHz"), _number(gpu.temperature_c, "C"), _number(gpu.power_w, "W")]
    )


def _start(report: BenchReport) -> Section:
    assert report.start is not None  # noqa: S101 - the caller looked
    rows = [[name, *_median(found, 1000)] for name, found in report.start.seconds.items()]
    title = (
        f"New process to first score, ms, {report.start.rounds} times; peak {_bytes(report.start.peak_bytes)}"
    )
    return Section(title, ["part", "median", "99 % interval"], rows)


def _scenario(scenario: Scenario) -> Section:
    title = (
        f"{scenario.name}: {scenario.images} images in {scenario.seconds:.1f} s, "
        f"{scenario.images_per_second:.2f} a second"
    )
    found = scenario.latency
    if found is None:
        return Section(title, ["", ""], [["images a second", f"{scenario.images_per_second:.2f}"]])
    rows = [
        [f"p{row.percentile:g}", f"{row.plain_ms:.2f}", f"{row.early_stopping_ms:.2f}", str(row.discarded)]
        for row in found.percentiles
    ]
    ends = {"mean": found.mean, "least": found.least, "greatest": found.greatest}
    rows += [[name, NOT_KNOWN if value is None else f"{value:.2f}", "", ""] for name, value in ends.items()]
    if found.unserved:
        rows.append(["unserved", f"{found.unserved} queries", "slower than any bound", ""])
    if found.next_percentile is not None:
        rows.append([f"p{found.next_percentile:g}", f"takes {found.next_queries} queries", "", ""])
    columns = ["of a query", "plain ms", "early-stopping ms", "slower than that"]
    return Section(f"{title}; {found.queries} queries", columns, rows)


def _stages(scenario: Scenario) -> Section:
    rows = [
        [stage.name, f"{stage.mean:.3f}", f"{stage.share:.1%}", *_median(stage.median, 1)]
        for stage in scenario.stages
    ]
    whole = sum(stage.mean for stage in scenario.stages)
    rows.append(["whole", f"{whole:.3f}", "100.0%", "", ""])
    columns = ["stage", "mean ms", "share", "median ms", "99 % interval"]
    return Section(f"{scenario.name}: stages, whose means add up", columns, rows)


def _server(scenario: Scenario) -> Section:
    server = scenario.server
    assert server is not None  # noqa: S101 - the caller looked
    bounds = ", ".join(f"p{each.percentile:g} within {each.ms:g} ms" for each in server.bounds) or "no bound"
    rate = "none known" if server.rate is None else f"{server.rate:.2f} a second"
    rows = [
        [
            f"{trial.rate:.2f}",
            str(trial.queries),
            ", ".join(map(str, trial.beyond)),
            str(trial.unserved),
            _met(trial.met),
        ]
        for trial in server.trials
    ]
    columns = ["queries a second", "queries", "beyond", "unserved", "met"]
    return Section(
        f"server: {bounds}, {server.streams} streams; highest rate that met it: {rate}", columns, rows
    )


def _loadgen(found: LoadGen) -> Section:
    title = f"{found.scenario} by LoadGen {found.version}"
    if found.p50_ms is None or found.p90_ms is None:
        rows = [[str(found.images), f"{found.images_per_second:.2f}"]]
        return Section(title, ["images", "images a second"], rows)
    title += f"; {found.queries} queries"
    estimate = f"takes {found.fewest_queries} queries" if found.fewest_queries else ""
    if found.early_stopping_p90_ms is not None:
        estimate = f"{found.early_stopping_p90_ms:.2f}"
    rows = [
        ["p50", f"{found.p50_ms:.2f}", "", ""],
        ["p90", f"{found.p90_ms:.2f}", estimate, "" if found.discarded is None else str(found.discarded)],
    ]
    if found.rate is not None:
        title += f", {found.rate:.2f} a second"
    if found.bound:
        holds = "holds" if found.met else "not shown to hold"
        title += f"; {found.bound.percentile:g} % within {found.bound.ms:g} ms: {holds}"
    columns = ["of a query", "plain ms", "early-stopping ms", "slower than that"]
    return Section(title, columns, rows)


def _sweep(sweep: Sweep) -> Section:
    rows = []
    for row in sweep.rows:
        if row.milliseconds is None:
            rows.append([row.setting, "not run", "", "", row.not_run or ""])
            continue
        parts = ", ".join(f"{name} {value:.1f}" for name, value in row.stages.items() if value >= 0.05)
        rate = "" if row.images_per_second is None else f"{row.images_per_second:.2f}"
        rows.append([row.setting, *_median(row.milliseconds, 1), rate, parts])
    columns = [sweep.name, "median ms", "99 % interval", "images a second", "mean ms of stages"]
    return Section(f"Sweep: {sweep.what}", columns, rows)


def _term(term: SlaTerm) -> list[str]:
    found = NOT_KNOWN
    if term.found is not None:
        found = _bytes(int(term.found)) if term.unit == "bytes" else f"{term.found:.2f} {term.unit}"
    return [term.term, found, _met(term.met), term.reason or ""]


def _against(found: Against) -> Section:
    shown = [change for change in found.changes if change.verdict in ("slower", "faster")]
    rows = [
        [
            change.what,
            f"{change.old.value:.2f}",
            f"{change.new.value:.2f}",
            NOT_KNOWN if change.ratio is None else f"{change.ratio:.2f}",
            change.verdict,
        ]
        for change in shown
    ]
    rows += [["differs", difference, "", "", ""] for difference in found.differs]
    rest = len(found.changes) - len(shown)
    title = (
        f"Against {found.software} of {found.created}: slower or faster where the 99 % intervals of the "
        f"medians do not overlap; {rest} other times within noise, or of too few samples"
    )
    return Section(title, ["time", "old ms", "new ms", "ratio", ""], rows)


def _met(met: bool | None) -> str:
    return {True: "yes", False: "NO", None: "too few queries, or not known"}[met]


def _median(found: Median, factor: float) -> list[str]:
    low, high = found.low, found.high
    interval = (
        f"of {found.samples}, too few"
        if low is None or high is None
        else (f"{factor * low:.2f} to {factor * high:.2f}")
    )
    return [f"{factor * found.value:.2f}", interval]


def _number(value: float | None, unit: str = "") -> str:
    return NOT_KNOWN if value is None else f"{value:g} {unit}".strip()


def _bytes(value: int | None) -> str:
    return NOT_KNOWN if value is None else f"{value / 1e6:.0f} MB"
