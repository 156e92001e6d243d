"""Measure the ways in which this machine can run a bundle, and choose: never another than was measured.

Every way is timed against the usual one, ONNX Runtime on all cores, in rounds that take turns: two models are
in memory at a time, and what else the machine does hits both.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from numpy.typing import NDArray

from promptray.calibrate.interleaved import interleaved
from promptray.runtime.backends import HOST, OPENVINO
from promptray.runtime.backends.choice import is_gated
from promptray.runtime.backends.host_settings import GATED, HostSettings
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.manifest import Manifest
from promptray.runtime.errors import PromptRayError
from promptray.runtime.golden import read_golden
from promptray.runtime.machine_class import consumers_here
from promptray.runtime.preprocess import normalise
from promptray.runtime.scorer import Scorer
from promptray.runtime.site_choice import SiteChoice
from promptray.runtime.tuning import LeftOut, Measured, Tuning, Way, machine_here, software_here

ROUNDS = 21
#: Seconds: threads of the call before go on looking for work for a while.
_REST = 0.005
_LOST = "calibrations of the site do not hold on it: {}"
Progress = Callable[[str, str, float], None]
Measure = Callable[[Mapping[str, Callable[[], object]]], Mapping[str, Mapping[str, float]]]


def ways(manifest: Manifest, cores: int, *, openvino: bool) -> list[Way]:
    """Return what is worth measuring, the usual way first.

    Parameters
    ----------
    manifest : Manifest
        Graphs that were changed (quantised, distilled) run as they were gated: as far rewritten.
    cores : int
        That this process may use.
    openvino : bool
        Whether it is installed; it is measured only where the bundle was gated on it.
    """
    counts = sorted({cores, max(1, cores // 2), 1}, reverse=True)
    settings = [HostSettings(arena=False)]
    if manifest.gated_for(consumers_here(HOST)) is None:
        settings += [HostSettings(optimisation="extended"), HostSettings(optimisation="basic")]
    found = [Way(backend=HOST, threads=count, settings=GATED) for count in counts]
    found += [Way(backend=HOST, threads=cores, settings=each) for each in settings]
    if openvino and is_gated(manifest, OPENVINO):
        # Not OpenVINO's hint "throughput", which is for several calls at once: here they come one by one.
        found += [Way(backend=OPENVINO, threads=count, settings=GATED) for count in counts]
    return found


def fastest(measured: Sequence[Measured]) -> Way:
    """Choose: the usual way, unless another is faster beyond the noise.

    Parameters
    ----------
    measured : sequence of Measured
        The usual way first. Another counts only where three of four rounds were faster than the usual one's;
        of those the one with the least median.
    """
    better = [each for each in measured[1:] if each.high < 1]
    return min(better, key=lambda each: each.ratio).way if better else measured[0].way


def confirmed(
    measured: Sequence[Measured], again: Callable[[Way], Measured | LeftOut]
) -> tuple[list[Measured], list[LeftOut]]:
    """Measure the fastest way once more, and so on until the fastest is one that was measured again.

    The best of many ways owes some of its lead to luck; rounds of its own tell how much.

    Parameters
    ----------
    measured : sequence of Measured
        The usual way first.
    again : callable
        Measures a way.

    Returns
    -------
    (list of Measured, list of LeftOut)
        Of ways that were measured again what was found then; those that failed then.
    """
    times: dict[Way, Measured | LeftOut] = {each.way: each for each in measured}
    settled = {measured[0].way}
    while (
        best := fastest(found := [each for each in times.values() if isinstance(each, Measured)])
    ) not in settled:
        times[best] = again(best)
        settled.add(best)
    return found, [each for each in times.values() if isinstance(each, LeftOut)]


def tune(
    path: str,
    *,
    site: SiteChoice,
    pixels: Sequence[NDArray] | None = None,
    rounds: int = ROUNDS,
    progress: Progress = lambda stage, message, fraction: None,
    measure: Measure | None = None,
) -> Tuning:
    """Measure a bundle on this machine.

    Parameters
    ----------
    path : path
        The bundle.
    site : SiteChoice
        Whose findings are scored, too. A way on which one of its calibrations would not be applied, though it
        is in the usual way, is left out.
    pixels : sequence of float32 (1, channels, height, width), optional
        Network input, taken in turns, no more of them than there are rounds; by default the golden pictures'.
    rounds : int
        Times that every way is timed.
    progress : callable
        Called with (stage, message, fraction).
    measure : callable, optional
        Callables ``usual`` and ``way`` -> of each ``median_ms``, ``ratio``, ``ratio_q1``, ``ratio_q3``.

    Returns
    -------
    Tuning
        Not stored yet.

    Raises
    ------
    PromptRayError
        What opening the bundle in the usual way raises; another way that fails is left out, and says why.
    """
    bundle, machine, software = Bundle.open(path), machine_here(), software_here()
    usual, *others = ways(bundle.manifest, machine.cores, openvino=software[OPENVINO] is not None)
    images = (list(pixels) if pixels is not None else _golden(bundle))[:rounds]
    timed = measure or partial(interleaved, rounds=rounds, baseline="usual", pause=_REST)
    with _opened(path, usual, site) as first:
        first.check_golden()

        def tried(way: Way) -> Measured | LeftOut:
            try:
                with _opened(path, way, site) as scorer:
                    if lost := _calibrated(first) - _calibrated(scorer):
                        return LeftOut(way=way, reason=_LOST.format(", ".join(sorted(lost))))
                    scorer.check_golden()
                    found = timed({"usual": _calls(first, images), "way": _calls(scorer, images)})
            except PromptRayError as error:
                return LeftOut(way=way, reason=f"{error.code}: {error.message}")
            return _measured(way, found["way"])

        times = [_measured(usual, timed({"usual": _calls(first, images)})["usual"])]
        left_out: list[LeftOut] = []
        for number, way in enumerate(others):
            progress("tune", way.title, number / len(others))
            found = tried(way)
            times.append(found) if isinstance(found, Measured) else left_out.append(found)
        measured, failed = confirmed(times, tried)
        findings = len(first.prompts.state.by_name)
    progress("tune", "done", 1.0)
    return Tuning(
        machine=machine,
        software=software,
        date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        images=len(images),
        findings=findings,
        rounds=rounds,
        chosen=fastest(measured),
        measured=measured,
        left_out=[*left_out, *failed],
    )


def _opened(path: str, way: Way, site: SiteChoice) -> Scorer:
    return Scorer.open(path, backend=way.backend, threads=way.threads, host=way.settings, site=site)


def _calibrated(scorer: Scorer) -> set[str]:
    """Return the findings to whose scores a calibration of the site is applied."""
    return {f"{head}: {key}" for head, key in scorer.prompts.state.calibrations}


def _golden(bundle: Bundle) -> list[NDArray]:
    pixels = normalise(read_golden(bundle).pictures, bundle.manifest.preprocessing)
    return [pixels[number : number + 1] for number in range(len(pixels))]


def _calls(scorer: Scorer, images: Sequence[NDArray]) -> Callable[[], object]:
    """Return a call that scores the next image; two scorers see the same ones in each round."""
    number = -1

    def call() -> object:
        nonlocal number
        number = (number + 1) % len(images)
        return scorer.submit_pixels(images[number]).result()

    return call


def _measured(way: Way, found: Mapping[str, float]) -> Measured:
    return Measured(
        way=way,
        milliseconds=found["median_ms"],
        ratio=found["ratio"],
        low=found["ratio_q1"],
        high=found["ratio_q3"],
    )
