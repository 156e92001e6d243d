"""``promptray bench``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from promptray.cli.finite_range import FiniteRange
from promptray.cli.image_files import image_files
from promptray.cli.opening_options import opening_of, opening_options
from promptray.cli.output import bundle_argument, json_option, print_json, print_table, progress, visible
from promptray.cli.threads import ScoringCommand

if TYPE_CHECKING:
    from promptray.calibrate.bench.report import BenchReport, Bound
    from promptray.calibrate.bench.run import Settings
    from promptray.calibrate.bench.sla import Term

_PATH = click.Path(path_type=Path)
_REPORT, _PAGE = "bench.json", "bench.html"
_SCENARIOS = ("single-stream", "multi-stream", "server", "offline")
_SWEEPS = ("prompts", "threads", "streams", "size", "syntax")
_LEAST_SECONDS, _MOST_SECONDS = 1.0, 7 * 86400.0
#: Queries a second; a scenario asks no more than 20 000 in all.
_MOST_RATE = 1e6


@click.command("bench", cls=ScoringCommand)
@bundle_argument
@click.argument("images", nargs=-1, required=True, type=_PATH)
@click.option(
    "--budget",
    type=FiniteRange(_LEAST_SECONDS, _MOST_SECONDS),
    default=60.0,
    show_default=True,
    help="Seconds of the whole run. No percentile is printed that it is too short for.",
)
@click.option(
    "--scenario",
    "scenarios",
    multiple=True,
    type=click.Choice([*_SCENARIOS, "all"]),
    default=("single-stream",),
    show_default=True,
    help="MLPerf scenario; may be given several times.",
)
@click.option(
    "--sweep",
    "sweeps",
    multiple=True,
    type=click.Choice([*_SWEEPS, "all"]),
    help="Cost against this setting; may be given several times.",
)
@click.option(
    "--sla", metavar="TERMS", help="Conditions such as p99<50ms,rss<1GB; one that is not met: exit code 1."
)
@click.option("--against", type=_PATH, metavar="OLD.JSON", help="Say what got slower since an older report.")
@click.option(
    "--latency-bound",
    type=FiniteRange(0, min_open=True),
    metavar="MS",
    help="Of the server scenario, whose rate is held to every percentile in --sla as well.",
)
@click.option("--percentile", type=FiniteRange(50, 99.9), help="Of queries within that bound (default: 90).")
@click.option(
    "--rate",
    type=FiniteRange(0, _MOST_RATE, min_open=True),
    help="Queries a second, instead of a search for them.",
)
@click.option(
    "--streams", type=click.IntRange(1, 64), default=1, show_default=True, help="Server: images at once."
)
@click.option(
    "--samples",
    type=click.IntRange(1, 1024),
    default=8,
    show_default=True,
    help="Multi-stream: images a query.",
)
@click.option("--no-start", is_flag=True, help="Start no new processes (cold start).")
@click.option("--loadgen", is_flag=True, help="The scenarios by MLCommons' LoadGen as well, where installed.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of draws and arrivals.")
@click.option("--modality", help="Modality of inputs that state none (PNG, JPEG), for example CR or DX.")
@click.option("--frame", type=click.IntRange(1), help="Frame of multi-frame objects, counted from 1.")
@opening_options
@click.option("-o", "--output", type=_PATH, help=f"New folder for {_REPORT} and {_PAGE}.")
@json_option
def command(bundle: str, images: tuple[Path, ...], output: Path | None, as_json: bool, **options: Any) -> int:
    """Measure file to score on this machine: latency by scenario and stage, start, memory.

    Percentiles follow MLPerf LoadGen: beside the plain one stands the early-stopping estimate, which the true
    one exceeds with a chance below 1 %. Reports name images by number, never by file.
    Exit code 1: a condition of --sla is not met (or cannot be told), or an image was refused.

    \b
    Examples:
      promptray bench chest.bundle films --sla "p99<500ms,rss<1GB"
      promptray bench chest.bundle film.dcm --scenario all --latency-bound 500 --budget 600 -o report
      promptray bench chest.bundle film.dcm --sweep all --against report/bench.json
    """
    from promptray.calibrate.bench.run import run_bench
    from promptray.calibrate.evaluation_report import to_json
    from promptray.calibrate.output_folder import OutputFolder

    files = list(image_files(images))
    if not files:
        raise click.UsageError("the folder holds no file")
    opening, settings = opening_of(bundle, options), _settings(options)
    # A folder that cannot be written to is refused before the run, not after it.
    target = OutputFolder(output, [_REPORT, _PAGE]) if output else None
    declared = {name: options[name] for name in ("modality", "frame") if options[name] is not None}
    with progress("bench") as bar:
        report = run_bench(opening, files, declared, settings, progress=bar)
    if target:
        from promptray.calibrate.bench.page import bench_html

        target.write({_REPORT: to_json(report), _PAGE: bench_html(report).encode()})
    _print(report, as_json)
    return 1 if report.refused or not all(term.met for term in report.sla) else 0


def _settings(options: dict[str, Any]) -> Settings:
    """Return what is to be measured; wrong usage is refused before the bundle is opened."""
    from promptray.calibrate.bench.against import read_report
    from promptray.calibrate.bench.loadgen import require_loadgen
    from promptray.calibrate.bench.run import Settings
    from promptray.calibrate.bench.sla import parse_sla

    scenarios = _chosen(options["scenarios"], _SCENARIOS)
    try:
        sla = parse_sla(options["sla"]) if options["sla"] is not None else []
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--sla") from None
    _require_server(scenarios, options)
    bounds = _bounds(sla, options)
    if "server" in scenarios and not bounds and options["rate"] is None:
        raise click.UsageError("the server scenario needs --latency-bound, a percentile in --sla, or --rate")
    _require_scenarios(sla, scenarios)
    if options["loadgen"]:
        require_loadgen()
    return Settings(
        budget=options["budget"],
        scenarios=scenarios,
        sweeps=_chosen(options["sweeps"], _SWEEPS),
        bounds=bounds,
        rate=options["rate"],
        streams=options["streams"],
        samples=options["samples"],
        starts=not options["no_start"],
        loadgen=options["loadgen"],
        seed=options["seed"],
        sla=sla,
        old=read_report(options["against"]) if options["against"] else None,
    )


def _require_server(scenarios: list[str], options: dict[str, Any]) -> None:
    """Refuse a rate or a bound that no scenario of the run would be held to."""
    for name in ("rate", "latency_bound"):
        if options[name] is not None and "server" not in scenarios:
            raise click.UsageError(f"--{name.replace('_', '-')} is of --scenario server, which is not run")


def _bounds(sla: list[Term], options: dict[str, Any]) -> list[Bound]:
    """Return what the server scenario's rate has to hold: the bound of its own, and every percentile."""
    from promptray.calibrate.bench.report import Bound
    from promptray.calibrate.bench.sla import server_bounds

    milliseconds, percentile = options["latency_bound"], options["percentile"]
    if milliseconds is None and percentile is not None:
        raise click.UsageError("--percentile is of the queries within --latency-bound, which is not given")
    own = [] if milliseconds is None else [Bound(percentile=percentile or 90.0, ms=milliseconds)]
    return [*own, *(each for each in server_bounds(sla) if each not in own)]


def _chosen(names: tuple[str, ...], every: tuple[str, ...]) -> list[Any]:
    """Return the names in their own order, each once; ``all`` stands for every one."""
    return [name for name in every if name in names or "all" in names]


def _require_scenarios(sla: list[Term], scenarios: list[str]) -> None:
    """Refuse conditions on a scenario that is not run: they could never be met."""
    for term in sla:
        if term.metric in _SCENARIOS and term.metric not in scenarios:
            raise click.UsageError(f"the condition {term.text} needs --scenario {term.metric}")


def _print(report: BenchReport, as_json: bool) -> None:
    import msgspec

    from promptray.calibrate.bench.table import facts, sections

    if as_json:
        print_json(msgspec.to_builtins(report))
    else:
        for section in sections(report):
            print_table(section.title, section.columns, section.rows)
            click.echo()
        for fact in facts(report):
            click.echo(visible(fact))
    missed = [term.term for term in report.sla if not term.met]
    if missed:
        click.echo(f"Not met: {', '.join(missed)}.", err=True)
    if report.refused:
        click.echo(f"{len(report.refused)} images were refused and not measured.", err=True)
