"""Cost against one setting: number of prompts, threads, callers, size of the image, transfer syntax."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from promptray.calibrate.bench.made_film import NO_ENCODER, SYNTAXES, dicom, film
from promptray.calibrate.bench.prompt_cost import prompt_cost
from promptray.calibrate.bench.report import Sweep, SweepName, SweepRow
from promptray.calibrate.bench.scenarios import Clock, Limit, Load, closed_loop, offline, single_stream
from promptray.calibrate.bench.summary import median
from promptray.calibrate.bench.system import ScorerSystem
from promptray.runtime.backends import OF_THE_HOST
from promptray.runtime.cores import DECODE_THREADS, host_threads
from promptray.runtime.errors import PromptRayError

if TYPE_CHECKING:
    from pathlib import Path

    from promptray.calibrate.bench.opening import Opening
    from promptray.runtime.scorer import Scorer

PROMPTS = (1, 4, 16, 64, 192, 256, 1024)
STREAMS = (1, 2, 4, 8)
SIDES = (512, 1024, 2048, 3072)
#: Rows and columns of a film of five megapixels.
FILM = (2560, 2048)
MOST_QUERIES = 400


@dataclass(frozen=True)
class Bench:
    """What sweeps work with.

    Attributes
    ----------
    scorer : Scorer
    opening : Opening
    image : Path
        The first image that can be scored.
    declared : mapping
        What is declared of it.
    clock : Clock
    seed : int
    """

    scorer: Scorer
    opening: Opening
    image: Path
    declared: Mapping[str, Any]
    clock: Clock
    seed: int


def sweep(name: SweepName, bench: Bench, seconds: float) -> Sweep:
    """Run one sweep within some seconds, shared alike by its settings; each is measured once at least."""
    rows, end = [], bench.clock.now() + seconds
    with ExitStack() as held:
        what, settings = _SWEEPS[name](bench, held)
        for number, setting in enumerate(settings):
            left = max(end - bench.clock.now(), 0.0)
            rows.append(_row(setting, left / (len(settings) - number)))
    return Sweep(name=name, what=what, rows=rows)


@dataclass(frozen=True)
class Setting:
    """One setting: its name, its place on an axis, and what measures it within some seconds."""

    name: str
    number: float | None
    measure: Callable[[float], Measured] | None
    reason: str | None = None


@dataclass(frozen=True)
class Measured:
    """Milliseconds of each call and of its stages, and images a second where they were measured as well."""

    milliseconds: Sequence[float]
    stages: Sequence[Mapping[str, float]]
    images_per_second: float | None = None


def _row(setting: Setting, seconds: float) -> SweepRow:
    reason = setting.reason
    if setting.measure is not None:
        try:
            found = setting.measure(seconds)
            names = dict.fromkeys(name for each in found.stages for name in each)
            means = {name: statistics.fmean(each.get(name, 0.0) for each in found.stages) for name in names}
            return SweepRow(
                setting=setting.name, number=setting.number, milliseconds=median(found.milliseconds),
                stages=means, images_per_second=found.images_per_second,
            )  # fmt: skip
        except PromptRayError as error:  # a setting that this bundle or backend cannot have
            reason = f"{error.code}: {error.message}"
    return SweepRow(setting=setting.name, number=setting.number, milliseconds=None, stages={}, not_run=reason)


def _of_load(load: Load, rate: float | None = None) -> Measured:
    return Measured([1000 * each for each in load.latencies], load.stages, rate)


Plan = tuple[str, list[Setting]]


def _prompts(bench: Bench, held: ExitStack) -> Plan:
    """Image side and head on pixels, with the bundle's own cached prompts, repeated."""
    what = "pixels to scores against a number of prompts: the bundle's own, repeated"
    head = next((each for each in bench.scorer.bundle.manifest.heads if each.set == "free"), None)
    if head is None:
        reason = "the findings of every head are a fixed set, which goes whole"
        return what, [Setting("any number", None, None, reason)]
    pixels = bench.scorer.prepare(bench.image, name="image 1", **bench.declared).network_input.pixels

    call_of = held.enter_context(prompt_cost(bench.scorer.bundle, bench.opening, head, pixels))

    def measure(count: int) -> Callable[[float], Measured]:
        return lambda seconds: _calls(call_of(count), bench, seconds)

    return what, [Setting(str(count), count, measure(count)) for count in PROMPTS]


def _calls(call: Callable[[], Mapping[str, float]], bench: Bench, seconds: float) -> Measured:
    call()
    return _of_load(single_stream(_Call(call), bench.clock, Limit(seconds, MOST_QUERIES), bench.seed))


class _Call:
    """A call as a system of one image."""

    images = 1

    def __init__(self, call: Callable[[], Mapping[str, float]]) -> None:
        self._call = call

    def one(self, image: int) -> Mapping[str, float]:
        return self._call()

    def several(self, images: Any) -> int:
        return sum(1 for _ in images if self._call() is not None)


def _threads(bench: Bench, _: ExitStack) -> Plan:
    """File to score, and images a second, with one thread, two, four, up to every core."""
    what = "file to score against threads of one call, JPEG 2000's included, and images a second of many"
    cores = host_threads(None)
    counts = sorted({1, *(2**power for power in range(cores.bit_length()) if 2**power < cores), cores})
    if bench.scorer.backend.name not in OF_THE_HOST:
        return what, [
            Setting("any number", None, None, f"{bench.scorer.backend.name} does not run on threads")
        ]

    def measure(count: int) -> Callable[[float], Measured]:
        def within(seconds: float) -> Measured:
            with _decoding_with(count), bench.opening.scorer_alike(bench.scorer, count) as scorer:
                system = ScorerSystem(scorer, [(1, bench.image)], bench.declared)
                system.one(0)
                load = single_stream(system, bench.clock, Limit(seconds / 2, MOST_QUERIES), bench.seed)
                many = offline(system, bench.clock, Limit(seconds / 2, MOST_QUERIES), bench.seed)
            return _of_load(load, many.samples / many.seconds if many.seconds else None)

        return within

    return what, [Setting(str(count), count, measure(count)) for count in counts]


@contextmanager
def _decoding_with(threads: int) -> Iterator[None]:
    """Decode JPEG 2000 with as many threads as a command that is given ``--threads`` does."""
    before = os.environ.get(DECODE_THREADS)
    os.environ[DECODE_THREADS] = str(threads)
    try:
        yield
    finally:
        if before is None:
            del os.environ[DECODE_THREADS]
        else:
            os.environ[DECODE_THREADS] = before


def _streams(bench: Bench, _: ExitStack) -> Plan:
    """File to score, and images a second, of one scorer with several callers at once."""
    what = "file to score against callers at once, one scorer, each asking as soon as it has its score"
    system = ScorerSystem(bench.scorer, [(1, bench.image)], bench.declared)

    def measure(count: int) -> Callable[[float], Measured]:
        def within(seconds: float) -> Measured:
            load = closed_loop(system, bench.clock, Limit(seconds, MOST_QUERIES), bench.seed, streams=count)
            return _of_load(load, load.samples / load.seconds if load.seconds else None)

        return within

    return what, [Setting(str(count), count, measure(count)) for count in STREAMS]


def _sizes(bench: Bench, _: ExitStack) -> Plan:
    """File to score of square films, uncompressed."""
    what = "file to score against the side of a square film, uncompressed, 12 bits, made of image 1"
    plain = SYNTAXES["Explicit VR Little Endian"]
    return what, [Setting(f"{side} x {side}", side, _made(bench, (side, side), plain)) for side in SIDES]


def _syntaxes(bench: Bench, _: ExitStack) -> Plan:
    """File to score of one film in each transfer syntax that can be written here."""
    rows, columns = FILM
    what = f"file to score against transfer syntax, a film of {rows} x {columns}, 12 bits, made of image 1"
    made = [Setting(name, None, _made(bench, FILM, uid)) for name, uid in SYNTAXES.items()]
    reason = "nothing in the edge install writes it: give a file of it as an image"
    return what, [*made, *(Setting(name, None, None, reason) for name in NO_ENCODER)]


def _made(bench: Bench, size: tuple[int, int], syntax: str) -> Callable[[float], Measured]:
    """Measure a film that is made when its turn comes, and forgotten after it."""

    def within(seconds: float) -> Measured:
        start = bench.clock.now()
        grey = bench.scorer.picture(bench.image, name="image 1", **bench.declared).grey
        modality = bench.scorer.bundle.manifest.door.modalities[0]
        content = dicom(film(grey, *size, bench.seed), syntax, modality)
        system = ScorerSystem(bench.scorer, [(1, content)], {})
        system.one(0)
        left = seconds - (bench.clock.now() - start)
        return _of_load(single_stream(system, bench.clock, Limit(left, MOST_QUERIES), bench.seed))

    return within


_SWEEPS: dict[SweepName, Callable[[Bench, ExitStack], Plan]] = {
    "prompts": _prompts,
    "threads": _threads,
    "streams": _streams,
    "size": _sizes,
    "syntax": _syntaxes,
}
