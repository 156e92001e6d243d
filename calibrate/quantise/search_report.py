"""What a search says: the ranking it began with, every trial with its numbers, and what it chose."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from promptray.calibrate.evaluation_table import Section
from promptray.calibrate.html_page import html_page, html_table
from promptray.calibrate.quantise.search import Trial
from promptray.calibrate.quantise.sensitivity import Sensitivity
from promptray.calibrate.quantise.sensitivity_report import bars
from promptray.runtime.bundle.gate_summary import ImagesOfGate
from promptray.runtime.json_schema import schema_of


class GateValue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The number of one gate for one mix, without its interval.

    Attributes
    ----------
    head : str
    gate : str
    finding : str or None
        The worst; None for a number over all.
    value : float or None
        None where the images cannot tell, as an AUROC without labels.
    bound : float
    sense : {"at most", "at least"}
    inside : bool
    """

    head: str
    gate: str
    finding: str | None
    value: float | None
    bound: float
    sense: Literal["at most", "at least"]
    inside: bool


TrialOf = Trial[list[GateValue]]


class SearchReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of the JSON document. It holds no patient ids and no names of images."""

    schema: Literal["promptray-search"]
    schema_version: Literal[1]
    software: str
    model: str
    machine: str
    """Class of the machine that the numbers hold for."""
    images: ImagesOfGate
    """That mixes were chosen by. The gate has others."""
    schemes: dict[str, str]
    """Of the graphs that layers were chosen in."""
    beside: dict[str, str]
    """Of graphs that are quantised as the recipe says, without a choice: in every mix and in the bundle."""
    findings: list[str]
    """In the order that `worst_finding` counts in."""
    sensitivity: Sensitivity
    """On the images that ranges are taken from."""
    trials: list[TrialOf]
    best: TrialOf | None
    keep: dict[str, list[str]] | None
    """What to write as `keep` of each graph instead of searching again. One of `schemes` that is not named
    stays fp32; those of `beside` ship as the recipe has them. None where no mix will do."""


def search_schema() -> dict[str, Any]:
    """Return the JSON Schema of the report."""
    return schema_of(SearchReport)


def words_of(trial: TrialOf) -> str:
    """Say which numbers of a trial are out of bounds."""
    missed = [
        f"{each.gate}{f' [{each.finding}]' if each.finding else ''} "
        f"{'not measured' if each.value is None else f'{each.value:.3g}'}, {each.sense} {each.bound:g}"
        for each in trial.verdict
        if not each.inside
    ]
    return "; ".join(missed) or "all inside"


def trials_table(report: SearchReport) -> Section:
    """Return the trials as rows for people."""
    rows = [
        [
            str(number),
            f"{each.share:.1%}",
            ", ".join(each.kept) or "nothing",
            words_of(each),
            "chosen" if each == report.best else "accepted" if each.accepted else "",
        ]
        for number, each in enumerate(report.trials, 1)
    ]
    title = f"Mixes by point estimates on {report.images.images} images"
    return Section(title, ["trial", "multiplications quantised", "kept high", "out of bounds", ""], rows)


def search_page(report: SearchReport) -> str:
    """Return the report as one HTML page."""
    beside = ", ".join(f"{title}: {tag}" for title, tag in report.beside.items())
    facts = [
        f"Model: {report.model}, {', '.join(f'{title}: {tag}' for title, tag in report.schemes.items())}",
        *([f"Quantised as the recipe says, no layers chosen: {beside}"] if beside else []),
        f"Machine: {report.machine}",
        f"Chosen by: {report.images.images} images, {report.images.source}",
        "These are point estimates on images that the choice was made by. Whether the chosen mix may be used "
        "is for the gate to say, on other images.",
        "No mix is inside all bounds." if report.best is None else f"Chosen: {_chosen(report)}",
    ]
    body = (
        html_table(trials_table(report)) + html_table(report.sensitivity.table()) + bars(report.sensitivity)
    )
    return html_page(f"Search for the fastest mix: {report.model}", facts, body)


def _chosen(report: SearchReport) -> str:
    keep = report.keep or {}
    parts = [f"{title} keeps {', '.join(names) or 'nothing'}" for title, names in keep.items()]
    parts += [f"{title} stays fp32" for title in report.schemes if title not in keep]
    return "; ".join(parts)
