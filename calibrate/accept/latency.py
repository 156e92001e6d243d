"""Latency from file to score against the conditions of the service, by the rules of ``promptray bench``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from promptray.calibrate.accept.report import Part, PartVerdict
from promptray.calibrate.bench.opening import Opening
from promptray.calibrate.bench.report import BenchReport, ScenarioName
from promptray.calibrate.bench.run import Settings, run_bench
from promptray.calibrate.bench.sla import Term, server_bounds
from promptray.calibrate.evaluation_report import RefusedImage
from promptray.calibrate.tables.image_folder import ImageFolder
from promptray.calibrate.tables.labels import LabelledImage
from promptray.runtime.errors import PromptRayError

Progress = Callable[[str, str, float], None]
#: Metrics of a condition that are about the time of one image.
_OF_LATENCY = ("mean", "max")
_OF_START = ("cold", "open")
_NO_NUMBER = "score.not-finite"


def bench_settings(sla: Sequence[Term], budget: float, seed: int) -> Settings:
    """Return what must be measured for the conditions, and no more.

    Raises
    ------
    ValueError
        Without a condition on the latency of a score, or where the server scenario has no latency to hold.
    """
    if not any(term.percentile is not None or term.metric in _OF_LATENCY for term in sla):
        raise ValueError("an acceptance needs a limit of the latency, such as p99<50ms, mean or max")
    metrics = {term.metric for term in sla}
    bounds = server_bounds(sla)
    if "server" in metrics and not bounds:
        raise ValueError("a rate of the server scenario needs a percentile beside it, such as p99<50ms")
    scenarios: list[ScenarioName] = ["single-stream"]
    scenarios += ["server"] if "server" in metrics else []
    scenarios += ["offline"] if "offline" in metrics else []
    return Settings(
        budget=budget,
        scenarios=scenarios,
        bounds=bounds,
        starts=bool(metrics & set(_OF_START)),
        # This process has compiled the text encoder as well, to hold the golden answers.
        new_process_memory="rss" in metrics,
        seed=seed,
        sla=sla,
    )


def hold_latency(
    opening: Opening,
    images: Sequence[LabelledImage],
    folder: ImageFolder,
    modality: str | None,
    settings: Settings,
    progress: Progress,
) -> tuple[BenchReport | None, Part]:
    """Measure the site's images, and hold the conditions against what was measured.

    What is declared holds for a whole run: where a table declares several modalities or frames, the images
    of the commonest are timed.

    Raises
    ------
    PromptRayError
        What scoring raises; a measurement that was not possible is a part that is inconclusive.
    """
    there = [place for place, image in enumerate(images) if image.file in folder.files]
    of = {place: (images[place].modality or modality, images[place].frame) for place in there}
    declared, _ = Counter(of.values()).most_common(1)[0]
    timed = [place for place in there if of[place] == declared]
    files = [folder.files[images[place].file] for place in timed]
    try:
        report = run_bench(opening, files, _declared(*declared), settings, progress=progress)
    except PromptRayError as error:
        if not error.code.startswith(("bench.", _NO_NUMBER)):
            raise
        return None, Part(name="latency", verdict="inconclusive", reason=_not_measured(error))
    report = _renumbered(report, [images[place] for place in timed])
    if not settings.new_process_memory:
        note = "Memory is that of the accepting process, which has held the text encoder as well."
        report = msgspec.structs.replace(report, notes=[*report.notes, note])
    if len(timed) < len(images):
        note = f"Timed: {len(timed)} of {len(images)} images, those that are there and declared alike."
        report = msgspec.structs.replace(report, notes=[*report.notes, note])
    return report, latency_part(report)


def _not_measured(error: PromptRayError) -> str:
    if error.code == _NO_NUMBER:  # the part `images` says which
        return f"{error.message}; nothing was timed"
    # Of what bench could leave out, nothing is measured here.
    cure = "raise --budget" if error.code == "bench.budget" else error.cure
    return f"{error.message}: {error.found}; {cure}"


def _renumbered(report: BenchReport, timed: Sequence[LabelledImage]) -> BenchReport:
    """Call images what the other parts do: by their line of the table, or place in the folder."""
    images = [msgspec.structs.replace(each, number=timed[each.number - 1].line) for each in report.images]
    scored = {each.number for each in report.images}
    places = [image.place for number, image in enumerate(timed, 1) if number not in scored]
    refused = [
        RefusedImage(image=place, code=each.code) for place, each in zip(places, report.refused, strict=True)
    ]
    return msgspec.structs.replace(report, images=images, refused=refused)


def _declared(modality: str | None, frame: int | None) -> Mapping[str, Any]:
    return {name: value for name, value in (("modality", modality), ("frame", frame)) if value is not None}


def latency_part(report: BenchReport) -> Part:
    """Return the verdict of all conditions: what is not known is not met."""
    verdict: PartVerdict = "passed"
    if any(term.met is None for term in report.sla):
        verdict = "inconclusive"
    if any(term.met is False for term in report.sla):
        verdict = "refused"
    return Part(name="latency", verdict=verdict, reason="; ".join(_said(report)))


def _said(report: BenchReport) -> list[str]:
    words = {True: "met", False: "NOT met", None: "cannot be told"}
    said = []
    for term in report.sla:
        found = "" if term.found is None else f", found {_amount(term.found, term.unit)}"
        reason = f" ({term.reason})" if term.reason else ""
        said.append(f"{term.term} {words[term.met]}{found}{reason}")
    return said


def _amount(value: float, unit: str) -> str:
    return f"{value / 1e6:.0f} MB" if unit == "bytes" else f"{value:.4g} {unit}"
