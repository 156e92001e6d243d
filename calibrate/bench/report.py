"""The report of ``promptray bench``: a versioned JSON document; the schema is these classes."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from promptray.calibrate.evaluation_report import RefusedImage
from promptray.runtime.backends import BackendFacts
from promptray.runtime.json_schema import schema_of
from promptray.runtime.result import BundleRef

ScenarioName = Literal["single-stream", "multi-stream", "server", "offline"]
SweepName = Literal["prompts", "threads", "streams", "size", "syntax"]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the report's structures: immutable, keyword-only, closed."""


class Median(_Struct, frozen=True):
    """The median of samples, with its 99 % interval by order statistics."""

    value: float
    low: float | None
    high: float | None
    """None, as `low` is, where fewer than eight samples give no interval."""
    samples: int


class Percentile(_Struct, frozen=True):
    """A percentile of latencies that there are enough queries for."""

    percentile: float
    plain_ms: float
    early_stopping_ms: float
    """LoadGen's estimate: the true percentile is no greater, with 99 % confidence."""
    discarded: int
    """Queries that were slower than the estimate."""


class Latency(_Struct, frozen=True):
    """Latencies of a scenario's queries, milliseconds."""

    queries: int
    """All that were asked, the unserved among them, which count as slower than any bound."""
    mean: float | None
    """None, as `greatest` is, where queries were unserved."""
    least: float
    greatest: float | None
    median: Median | None
    """None where it lies among the unserved."""
    percentiles: list[Percentile]
    """Those that the queries support by the early-stopping rule, no higher ones, and none of the unserved."""
    next_percentile: float | None
    """The next higher one, and the queries that it takes; None where the highest is supported."""
    next_queries: int | None
    each: list[float]
    """Of every query that was served, in the order of asking."""
    unserved: int = 0
    """Of the Server scenario: had not begun when its time was over."""


class Stage(_Struct, frozen=True):
    """A part of the time from file to score. The means of all stages add up to the mean of the whole."""

    name: str
    mean: float
    median: Median
    share: float
    """Of the whole's mean."""


class Bound(_Struct, frozen=True):
    """A percentile of the latencies, and what it has to stay within."""

    percentile: float
    ms: float


class Trial(_Struct, frozen=True):
    """One rate of the Server scenario."""

    rate: float
    """Queries a second, on average."""
    queries: int
    unserved: int
    """Queries that had waited too long when the trial ended; they count as beyond every bound."""
    beyond: list[int]
    """Queries beyond each of the bounds."""
    met: bool | None
    """Whether all bounds hold together. None: too few queries to tell, or there is none."""


class ServerReport(_Struct, frozen=True):
    """The highest rate of queries that meets all bounds of the latency together."""

    bounds: list[Bound]
    """None of them: the latencies of a rate that was given, which is not judged."""
    streams: int
    rate: float | None
    """None: no rate that was tried met all bounds, or there were too few queries to tell."""
    trials: list[Trial]


class Scenario(_Struct, frozen=True):
    """One scenario."""

    name: ScenarioName
    queries: int
    images: int
    images_per_query: int | None
    """None: all at once."""
    seconds: float
    ended: Literal["time", "queries"]
    images_per_second: float
    latency: Latency | None
    """None where a latency has no meaning: Offline."""
    stages: list[Stage]
    """SingleStream only."""
    server: ServerReport | None = None


class LoadGen(_Struct, frozen=True):
    """One scenario as MLCommons' own LoadGen asked and counted."""

    version: str
    scenario: ScenarioName
    queries: int
    images: int
    rate: float | None
    """Queries a second that it asked: Server only."""
    images_per_second: float | None
    """Offline only."""
    p50_ms: float | None
    """None where a latency has no meaning: Offline."""
    p90_ms: float | None
    early_stopping_p90_ms: float | None
    """None: too few queries, or a scenario of which LoadGen makes no estimate."""
    discarded: int | None
    """Queries slower than the estimate, by LoadGen's own count."""
    fewest_queries: int | None
    """That LoadGen wants for the 90th percentile."""
    bound: Bound | None
    """What the Server scenario was held to."""
    met: bool | None
    """Whether its early stopping says that the bound holds; false for too few queries, too."""


class Start(_Struct, frozen=True):
    """New processes: seconds from nothing to the first score. The files are in the system's cache."""

    rounds: int
    seconds: dict[str, Median]
    """``import``, ``open``, ``first score`` and ``whole process``."""
    peak_bytes: int | None
    """Greatest resident memory of such a process; None where the system does not tell."""


class Memory(_Struct, frozen=True):
    """Memory after the scenarios, before sweeps. None: the system does not tell."""

    peak_bytes: int | None
    """Greatest resident memory of the process."""
    gpu_bytes: int | None
    """In use on the GPU, by every process."""


class SweepRow(_Struct, frozen=True):
    """One setting of a sweep."""

    setting: str
    number: float | None
    """Place on the axis of a plot; None for settings that have no order."""
    milliseconds: Median | None
    stages: dict[str, float]
    """Mean milliseconds of each stage."""
    images_per_second: float | None = None
    not_run: str | None = None
    """Why there is no number."""


class Sweep(_Struct, frozen=True):
    """Cost against one setting."""

    name: SweepName
    what: str
    rows: list[SweepRow]


class Gpu(_Struct, frozen=True):
    """A GPU at one moment. None: it does not tell."""

    name: str
    clock_mhz: float | None
    memory_clock_mhz: float | None
    temperature_c: float | None
    power_w: float | None
    memory_used_bytes: int | None
    throttled: list[str] | None
    """Why it runs below its clock, in the driver's words."""


class Moment(_Struct, frozen=True):
    """What changes while a machine works."""

    load_average: float | None
    """Of the last minute."""
    cpu_mhz: float | None
    """Mean of all cores."""
    cpu_throttled: int | None
    """Times that cores were throttled for heat since the system started."""
    gpu: Gpu | None


class Machine(_Struct, frozen=True):
    """The machine. None: not known."""

    system: str
    python: str
    cpu: str
    machine_class: str
    cores: int
    """That this process may use."""
    cpu_flags: list[str]
    governor: str | None
    """Of the frequency of the CPU's cores; several are joined by a comma."""
    memory_bytes: int | None
    gpu_source: Literal["nvml", "tegrastats"] | None
    gpu_unknown: str | None
    """Why nothing is known of a GPU."""
    before: Moment
    after: Moment
    throttled: list[str] | None
    """What slowed the machine down while it was measured. None: nothing is known to have, and not everything
    that is there tells."""
    at_work: list[Moment] = []
    """Right after each scenario, or part of an acceptance that measures latency: clocks and reasons of a GPU
    that has just worked."""


class ImageFacts(_Struct, frozen=True):
    """An image that was scored. It has a number and no name: names of files are patient data."""

    number: int
    """Its place among those given, from 1."""
    kind: str
    rows: int
    columns: int
    transfer_syntax: str | None
    bytes: int | None


class Protocol(_Struct, frozen=True):
    """How the numbers were made."""

    budget_seconds: float
    confidence: float
    tolerance: float
    seed: int
    warm_up: int
    """Images scored before anything was measured."""
    findings: int
    prepare: Literal["cpu", "device"]
    decode_threads: str | None = None
    """Of JPEG 2000, as the variable ``OPJ_NUM_THREADS`` had them; None: it was not set, which is one."""
    reduced_decode: bool = False
    reproducible: bool = False


class SlaTerm(_Struct, frozen=True):
    """One condition of ``--sla``."""

    term: str
    unit: str
    found: float | None
    met: bool | None
    """None: too few queries, or the machine does not tell. Then it is not met."""
    reason: str | None


class Change(_Struct, frozen=True):
    """One time beside that of an older report, milliseconds."""

    what: str
    old: Median
    new: Median
    ratio: float | None
    """None where the older time is none, or too short to divide by."""
    verdict: Literal["slower", "faster", "within noise", "too few samples"]


class Against(_Struct, frozen=True):
    """What got slower since an older report: the 99 % intervals of both medians do not overlap."""

    created: str
    software: str
    differs: list[str]
    """What else is not the same: machine, backend, bundle, images, settings."""
    changes: list[Change]


class BenchReport(_Struct, frozen=True):
    """All of ``bench.json``. It holds no names of files and nothing of what images show."""

    schema: Literal["promptray-bench"]
    schema_version: Literal[1]
    software: str
    created: str
    """UTC."""
    bundle: BundleRef
    backend: BackendFacts
    machine: Machine
    images: list[ImageFacts]
    refused: list[RefusedImage]
    protocol: Protocol
    start: Start | None
    scenarios: list[Scenario]
    loadgen: list[LoadGen]
    memory: Memory
    sweeps: list[Sweep]
    sla: list[SlaTerm]
    against: Against | None
    notes: list[str]


def bench_schema() -> dict[str, Any]:
    """Return the JSON Schema of the report."""
    return schema_of(BenchReport)
