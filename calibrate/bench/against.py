"""What got slower since an older report.

Two times differ beyond noise where the 99 % intervals of their medians do not overlap (order statistics,
which suppose no distribution). That is the noise within a run. A machine that was busier in one of
the two differs as well: the report says what else is not the same.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import msgspec

from promptray.calibrate.bench.report import Against, BenchReport, Change, Median
from promptray.runtime.errors import PromptRayError


def read_report(path: Path) -> BenchReport:
    """Read an older report.

    Raises
    ------
    PromptRayError
        ``bench.report`` for a file that is not there, or not a report of this version.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=BenchReport)
    except OSError as error:
        found = error.strerror or type(error).__name__
    except msgspec.MsgspecError as error:
        found = str(error)
    raise PromptRayError(
        "bench.report",
        "the older report cannot be read",
        artefact=path.name,
        expected="a bench.json of this version, as `promptray bench -o` writes it",
        found=found,
        cure="measure the older state again with this version",
    )


def against(old: BenchReport, new: BenchReport) -> Against:
    """Return every time that both reports have, the slower ones first."""
    before, now = dict(times(old)), dict(times(new))
    changes = [change(what, before[what], now[what]) for what in now if what in before]
    order = ["slower", "faster", "too few samples", "within noise"]
    return Against(
        created=old.created,
        software=old.software,
        differs=differences(old, new),
        changes=sorted(changes, key=lambda each: order.index(each.verdict)),
    )


def change(what: str, old: Median, new: Median) -> Change:
    """Return one time beside the older one."""
    verdict: Literal["slower", "faster", "within noise", "too few samples"] = "within noise"
    if old.low is None or old.high is None or new.low is None or new.high is None:
        verdict = "too few samples"
    elif new.low > old.high:
        verdict = "slower"
    elif new.high < old.low:
        verdict = "faster"
    ratio = new.value / old.value if old.value > 0 else math.inf
    known = ratio if math.isfinite(ratio) else None
    return Change(what=what, old=old, new=new, ratio=known, verdict=verdict)


def times(report: BenchReport) -> Iterator[tuple[str, Median]]:
    """Yield the median of every time of a report, in milliseconds, by what it is of."""
    for scenario in report.scenarios:
        several = (scenario.images_per_query or 1) > 1
        name = f"{scenario.name} of {scenario.images_per_query}" if several else scenario.name
        middle = scenario.latency.median if scenario.latency else None
        if middle and scenario.name != "server":  # whose waits depend on the rate
            yield f"{name}, whole", middle
        for stage in scenario.stages:
            yield f"{scenario.name}, {stage.name}", stage.median
    for name, found in report.start.seconds.items() if report.start else ():
        yield f"start, {name}", _scaled(found, 1000)
    for sweep in report.sweeps:
        for row in sweep.rows:
            if row.milliseconds:
                yield f"{sweep.name}, {row.setting}", row.milliseconds


def differences(old: BenchReport, new: BenchReport) -> list[str]:
    """Say what else than time is not the same."""
    pairs = {
        "CPU": (old.machine.cpu, new.machine.cpu),
        "cores": (old.machine.cores, new.machine.cores),
        "governor": (old.machine.governor, new.machine.governor),
        "Python": (old.machine.python, new.machine.python),
        "threads that decode": (old.protocol.decode_threads, new.protocol.decode_threads),
        "reduced decode": (old.protocol.reduced_decode, new.protocol.reduced_decode),
        "reproducible": (old.protocol.reproducible, new.protocol.reproducible),
        "software": (old.software, new.software),
        "bundle": (old.bundle.sha256[:12], new.bundle.sha256[:12]),
        "backend": (_backend(old), _backend(new)),
        "why it ran": (old.backend.reason, new.backend.reason),
        "threads": (old.backend.threads, new.backend.threads),
        "images": (_images(old), _images(new)),
        "findings": (old.protocol.findings, new.protocol.findings),
        "throttled": (_throttled(old), _throttled(new)),
    }
    return [
        f"{what}: {before or 'none'} -> {now or 'none'}"
        for what, (before, now) in pairs.items()
        if before != now
    ]


def _backend(report: BenchReport) -> str:
    backend = report.backend
    where = f"{backend.name} {backend.version}, {backend.device}"
    return f"{where}, {backend.precision}, prepared on {backend.prepare}"


def _throttled(report: BenchReport) -> str:
    reasons = report.machine.throttled
    return "not known" if reasons is None else ", ".join(reasons)


def _images(report: BenchReport) -> str:
    """Return what the cost of reading and decoding depends on: sizes, kinds, transfer syntaxes."""
    facts = (
        " ".join(filter(None, (f"{image.rows}x{image.columns}", image.kind, image.transfer_syntax)))
        for image in report.images
    )
    return ", ".join(f"{count} of {fact}" for fact, count in sorted(Counter(facts).items()))


def _scaled(found: Median, factor: float) -> Median:
    low, high = (None if each is None else factor * each for each in (found.low, found.high))
    return Median(value=factor * found.value, low=low, high=high, samples=found.samples)
