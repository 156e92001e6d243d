"""The whole of ``promptray bench``, within its budget."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import msgspec

from promptray.calibrate.bench import cold
from promptray.calibrate.bench.against import against
from promptray.calibrate.bench.loadgen import Plan, run_loadgen
from promptray.calibrate.bench.machine import Watch
from promptray.calibrate.bench.memory import peak_bytes
from promptray.calibrate.bench.opening import Opening
from promptray.calibrate.bench.percentile import CONFIDENCE, fewest_queries
from promptray.calibrate.bench.report import (
    BenchReport,
    Bound,
    LoadGen,
    Memory,
    Protocol,
    Scenario,
    ScenarioName,
    ServerReport,
    Start,
    Sweep,
    SweepName,
)
from promptray.calibrate.bench.scenarios import (
    Clock,
    Limit,
    Load,
    MachineClock,
    System,
    multi_stream,
    offline,
    single_stream,
)
from promptray.calibrate.bench.serve import serve
from promptray.calibrate.bench.sla import Measured, Term, judge
from promptray.calibrate.bench.summary import latency, stages
from promptray.calibrate.bench.sweeps import Bench, sweep
from promptray.calibrate.bench.system import WarmUp, warm_up
from promptray.runtime.backend_facts import reduces_decode
from promptray.runtime.backends import OF_THE_HOST
from promptray.runtime.cores import DECODE_THREADS
from promptray.runtime.errors import PromptRayError
from promptray.runtime.scorer import Scorer
from promptray.runtime.version import VERSION

MOST_STARTS = 10
#: Images that a new process scores for its memory.
MOST_IN_MEMORY = 16
Progress = Callable[[str, str, float], None]


@dataclass(frozen=True)
class Settings:
    """What is measured.

    Attributes
    ----------
    budget : float
        Seconds of all together. Opening and warm-up are part of it, and never cut; every other part gets an
        equal share of what is left when its turn comes, and measures once at least.
    scenarios : sequence of str
    sweeps : sequence of str
    bounds : sequence of Bound
        What the Server scenario holds together; it needs one, or a `rate`.
    rate : float or None
        Of the Server scenario, instead of a search.
    streams : int
        Images under way at once in the Server scenario.
    samples : int
        Images of one query of MultiStream.
    starts : bool
        Whether new processes are started.
    loadgen : bool
        Whether MLCommons' LoadGen runs the scenarios as well.
    seed : int
    new_process_memory : bool
        Whether memory is that of a new process, because this one held more than what scores.
    sla : sequence of Term
    old : BenchReport or None
        What to compare with.
    """

    budget: float
    scenarios: Sequence[ScenarioName] = ("single-stream",)
    sweeps: Sequence[SweepName] = ()
    bounds: Sequence[Bound] = ()
    rate: float | None = None
    streams: int = 1
    samples: int = 8
    starts: bool = True
    loadgen: bool = False
    seed: int = 0
    new_process_memory: bool = False
    sla: Sequence[Term] = ()
    old: BenchReport | None = None


@dataclass
class _Run:
    """A run under way."""

    settings: Settings
    opening: Opening
    declared: Mapping[str, Any]
    clock: Clock
    progress: Progress
    end: float
    left: int
    """Phases that are still to come; each gets an equal share of the time that is left."""
    found: list[Scenario] = field(default_factory=list)

    def share(self, name: str, what: str) -> float:
        """Begin a phase, and return its seconds."""
        rest = max(self.end - self.clock.now(), 0.0)
        self.progress(name, what, 1 - rest / self.settings.budget)
        seconds = rest / self.left
        self.left -= 1
        return seconds


def run_bench(
    opening: Opening,
    files: Sequence[Path],
    declared: Mapping[str, Any],
    settings: Settings,
    *,
    clock: Clock | None = None,
    progress: Progress = lambda stage, message, fraction: None,
) -> BenchReport:
    """Measure file to score.

    Parameters
    ----------
    opening : Opening
        What is measured, and how it is opened.
    files : sequence of Path
        Images, at least one.
    declared : mapping
        What is declared of every image.
    settings : Settings
    clock : Clock, optional
    progress : callable, optional

    Raises
    ------
    PromptRayError
        ``bench.images`` where no image can be scored, ``bench.budget`` where there was no time for enough
        queries for any percentile; ``bench.start``, and what opening a bundle and scoring raise.
    """
    clock = clock or MachineClock()
    scenarios = len(settings.scenarios) * (2 if settings.loadgen else 1)
    phases = int(settings.starts) + scenarios + len(settings.sweeps)
    run = _Run(settings, opening, declared, clock, progress, clock.now() + settings.budget, phases)
    watch = Watch()
    with opening.scorer() as scorer:
        progress("warm-up", f"{len(files)} images", 0.0)
        warm = warm_up(scorer, files, declared, clock)
        image = files[warm.images[0].number - 1]
        start = _start(run, image) if settings.starts else None
        for name in settings.scenarios:
            run.found.append(_scenario(run, name, warm))
            watch.look()
        by_loadgen = []
        if settings.loadgen:
            by_loadgen = [found for each in run.found if (found := _by_loadgen(run, each, warm))]
        peak = _peak_of_new_process(run, files, warm) if settings.new_process_memory else peak_bytes()
        memory = Memory(peak_bytes=peak, gpu_bytes=watch.gpu_bytes)
        _require_percentile(run)
        bench = Bench(scorer, opening, image, declared, clock, settings.seed)
        sweeps = [sweep(name, bench, run.share(f"sweep {name}", "")) for name in settings.sweeps]
        machine = watch.end()
        report = BenchReport(
            schema="promptray-bench", schema_version=1, software=f"promptray {VERSION}",
            created=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
            bundle=warm.first.document.bundle, backend=warm.first.document.backend, machine=machine,
            images=warm.images, refused=warm.refused, start=start,
            protocol=_protocol(settings, opening, scorer, warm),
            scenarios=run.found, loadgen=by_loadgen, memory=memory, sweeps=sweeps,
            sla=[judge(term, Measured(run.found, start, memory)) for term in settings.sla],
            against=None, notes=_notes(scorer, settings, sweeps, by_loadgen),
        )  # fmt: skip
    progress("done", "", 1.0)
    if settings.old is None:
        return report
    return msgspec.structs.replace(report, against=against(settings.old, report))


def _start(run: _Run, image: Path) -> Start:
    """Start new processes, at least one, for as long as there is time."""
    seconds, begun = run.share("start", "new processes"), run.clock.now()
    opening = run.opening
    taken: list[dict[str, Any]] = []
    while len(taken) < MOST_STARTS:
        taken.append(
            cold.once(opening.bundle, image, run.declared, opening.plain, gpu=opening.plain_gpu, memory=True)
        )
        if run.clock.now() - begun >= seconds:
            break
    return cold.start_of(taken)


def _peak_of_new_process(run: _Run, files: Sequence[Path], warm: WarmUp) -> int | None:
    """Return the greatest memory of a process that does nothing but score the largest images."""
    largest = sorted(warm.images, key=lambda image: image.rows * image.columns, reverse=True)[:MOST_IN_MEMORY]
    first, *more = (files[image.number - 1] for image in largest)
    opening = run.opening
    found = cold.once(
        opening.bundle, first, run.declared, opening.plain, gpu=opening.plain_gpu, memory=True, more=more
    )
    peak: int | None = found["peak"]
    return peak


def _scenario(run: _Run, name: ScenarioName, warm: WarmUp) -> Scenario:
    settings, clock, seconds = run.settings, run.clock, run.share(name, "")
    system: System = warm.system
    served: ServerReport | None = None
    per_query: int | None = 1
    match name:
        case "single-stream":
            load = single_stream(system, clock, Limit(seconds), settings.seed)
        case "multi-stream":
            per_query = settings.samples
            load = multi_stream(system, clock, Limit(seconds), settings.seed, samples=settings.samples)
        case "offline":
            per_query = None
            load = offline(system, clock, Limit(seconds), settings.seed)
        case "server":
            served, load = serve(
                system, clock, seconds, settings.seed, bounds=settings.bounds, streams=settings.streams,
                rate=settings.rate, alone=max(warm.seconds_each, 1e-6),
            )  # fmt: skip
    return scenario_of(name, load, per_query, served, [term.percentile for term in settings.sla])


def _by_loadgen(run: _Run, ours: Scenario, warm: WarmUp) -> LoadGen | None:
    """Let LoadGen ask as our scenario did.

    Its Server asks at the rate that ours found, or at the highest that was served to the end: it does not end
    before all queries have their answers. None where there was no such rate.
    """
    settings, seconds = run.settings, run.share("LoadGen", ours.name)
    samples = settings.samples if ours.name == "multi-stream" else 1
    rate: float | None = 1 / (max(warm.seconds_each, 1e-6) * samples)
    if ours.name == "offline":
        rate = ours.images_per_second or rate
    if ours.server:
        served = [each.rate for each in ours.server.trials if each.queries and not each.unserved]
        rate = ours.server.rate or max(served, default=None)
    if rate is None:
        return None
    bound = settings.bounds[0] if ours.server and settings.bounds else None
    plan = Plan(
        scenario=ours.name, seconds=seconds, rate=rate, seed=settings.seed,
        samples=samples, streams=settings.streams, bound=bound,
    )  # fmt: skip
    return run_loadgen(warm.system, plan)


def scenario_of(
    name: ScenarioName,
    load: Load,
    per_query: int | None,
    served: ServerReport | None = None,
    wanted: Sequence[float | None] = (),
) -> Scenario:
    """Return what a scenario's queries say, with the percentiles that are wanted beside the usual ones."""
    percentiles = [each for each in wanted if each is not None]
    return Scenario(
        name=name,
        queries=len(load.latencies) + load.unserved if per_query else 1,
        images=load.samples,
        images_per_query=per_query,
        seconds=load.seconds,
        ended=load.ended,
        images_per_second=load.samples / load.seconds if load.seconds > 0 else 0.0,
        latency=latency(load.latencies, percentiles, load.unserved) if load.latencies else None,
        stages=stages(load.latencies, load.stages) if load.stages else [],
        server=served,
    )


def _require_percentile(run: _Run) -> None:
    """Refuse a run whose latencies support no percentile at all."""
    timed = [each.latency for each in run.found if each.latency]
    needed = fewest_queries(50)
    if not timed or any(each.percentiles or each.queries >= needed for each in timed):
        return
    most = max(timed, key=lambda each: each.queries)
    mean = statistics.fmean(most.each)
    raise PromptRayError(
        "bench.budget",
        "there was no time for enough queries to state even the median",
        expected=f"{needed} queries, about {needed * mean / 1000:.0f} s for this scenario alone",
        found=f"{most.queries} queries of {mean:.0f} ms",
        cure="raise --budget, leave out scenarios and sweeps, or --no-start",
    )


def _protocol(settings: Settings, opening: Opening, scorer: Scorer, warm: WarmUp) -> Protocol:
    return Protocol(
        budget_seconds=settings.budget, confidence=CONFIDENCE, tolerance=0.0, seed=settings.seed,
        warm_up=warm.scored, findings=len(scorer.prompts), prepare=scorer.backend.prepare,
        decode_threads=os.environ.get(DECODE_THREADS), reduced_decode=opening.reduced_decode,
        reproducible=opening.reproducible,
    )  # fmt: skip


def _notes(
    scorer: Scorer, settings: Settings, sweeps: Sequence[Sweep], by_loadgen: Sequence[LoadGen]
) -> list[str]:
    """Say what the numbers are of, where that is not plain."""
    found = [
        "Files were read before: `read` is the time from the system's file cache, not from a disk.",
        "Stages of SingleStream add up to the whole; `rest` is what the clock around the call saw beyond.",
    ]
    if scorer.backend.name in OF_THE_HOST:
        found.append(
            "host-to-device and device-to-host: none, the graphs run in the memory that the image is in."
        )
    else:
        found.append(
            "host-to-device, image side, heads and device-to-host are one enqueue on this backend: `infer`."
        )
    if reduces_decode(scorer.backend):
        gate = scorer.backend.decode
        passed = f"passed gate {gate.gate} here" if gate else "passed no gate here, so `score` refuses it"
        found.append(f"Decoding at a lower resolution {passed}.")
    if settings.loadgen and len(by_loadgen) < len(settings.scenarios):
        found.append("LoadGen did not run the server scenario: no rate that was tried was served to the end.")
    if len(settings.bounds) > 1 and any(each.bound for each in by_loadgen):
        found.append("LoadGen's server scenario knows one bound: the first.")
    if settings.starts:
        found.append("Start: new processes, the bundle and the image in the system's file cache.")
    if settings.new_process_memory:
        found.append(f"Memory: a new process that scores the largest images, {MOST_IN_MEMORY} at most.")
    if any(sweep.name in ("size", "syntax") for sweep in sweeps):
        found.append(
            "Films of sweeps are made of image 1 and in memory already, so `read` is the parsing alone."
        )
    return found
