"""The report as a page for people: the stages side by side."""

from __future__ import annotations

from collections.abc import Sequence

from promptray.calibrate.adapt.report import AdaptationReport, StageReport
from promptray.calibrate.evaluation_report import Estimate

_ALT = "Main numbers of the stages with their intervals"
_HEAD = """\
# Adaptation of {recipe} to {labels}

What was measured is how the bundles score these images. It is no proof of medical worth on others.
"""


def page(report: AdaptationReport, picture: str | None = None) -> str:
    """Return Markdown; `picture` is the name of the plot beside it."""
    text = _HEAD.format(recipe=report.recipe.name, labels=f"{report.data.labels.name}, {report.data.column}")
    text += _advice(report) + (f"\n![{_ALT}]({picture})\n" if picture else "")
    text += _stages(report) + _differences(report)
    for stage in report.stages:
        text += f"\n## Confusion: {stage.name}\n\n"
        rows = [[key, *map(str, row)] for key, row in zip(report.classes, stage.confusion, strict=True)]
        text += table(["labelled as", *(f"predicted {key}" for key in report.classes)], rows)
    return text + _images(report) + _training(report.stages)


def stage_rows(report: AdaptationReport) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows: a row for each number, a column for each stage."""
    rows = [
        [name, *(said(stage.numbers.get(name)) for stage in report.stages)]
        for name in report.stages[0].numbers
    ]
    return ["test part", *(stage.name for stage in report.stages)], rows


def difference_rows(report: AdaptationReport) -> tuple[list[str], list[list[str]]]:
    """Return columns and rows: what each later stage has more than each earlier one."""
    names = list(report.stages[0].numbers)
    titles = [f"{each.later} less {each.earlier}" for each in report.differences]
    rows = [[name, *(said(each.numbers.get(name), "+.3f") for each in report.differences)] for name in names]
    return ["difference", *titles], rows


def said(estimate: Estimate | None, form: str = ".3f") -> str:
    """Write a number with its interval."""
    if estimate is None:
        return ""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:{form}} (no interval)"
    return f"{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def advice_line(report: AdaptationReport) -> str:
    """Say what to roll out, in one line."""
    stage = report.advice.stage
    return "Nothing is recommended." if stage is None else f"Roll out: {stage}.bundle."


def _advice(report: AdaptationReport) -> str:
    lines = [f"\n## {advice_line(report)}\n", *(f"- {reason}" for reason in report.advice.reasons)]
    lines += [f"- {note}" for note in report.notes]
    return "\n".join(lines) + "\n"


def _stages(report: AdaptationReport) -> str:
    facts = report.intervals
    text = (
        f"\n## Stages side by side\n\n{facts.confidence:.0%} percentile intervals of {facts.draws} draws of "
        f"{report.division.units}, of which the test part holds {facts.units}. A class that a draw does not "
        "hold is left out of that draw's means.\n\n"
    )
    return text + table(*stage_rows(report))


def _differences(report: AdaptationReport) -> str:
    if not report.differences:
        return ""
    return "\n## Differences\n\nThe same units are drawn for both.\n\n" + table(*difference_rows(report))


def _images(report: AdaptationReport) -> str:
    division, data = report.division, report.data
    text = f"\n## Images\n\nDivision: {division.how}; kept whole: {division.units}.\n\n"
    rows = [
        [part.name, str(part.images), str(part.units), *(str(part.classes[key]) for key in report.classes)]
        for part in division.parts
    ]
    text += table(["part", "images", "units", *report.classes], rows)
    text += f"\nRows without a class: {data.unlabelled}. Files that no row names: {data.unlabelled_files}.\n"
    if data.left_out:
        text += f"\nLeft out, {len(data.left_out)}:\n\n"
        text += table(["image", "code"], [[image.image, image.code] for image in data.left_out])
    if division.copies:
        text += "\nOne picture each, of which the first counts:\n\n" + "".join(
            f"- {', '.join(names)}\n" for names in division.copies
        )
    return text


def _training(stages: Sequence[StageReport]) -> str:
    text = ""
    for stage in stages:
        if stage.probe:
            probe = stage.probe
            text += (
                f"\n## Probe\n\nLogistic regression on {probe.width} numbers an image; inverse strength of "
                f"the L2 penalty C = {probe.c:.3g}, of {probe.folds} folds.\n\n"
            )
            rows = [[f"{c:.3g}", f"{loss:.4f}"] for c, loss in probe.losses]
            text += table(["C", "log loss, held out"], rows) if rows else ""
        if stage.fine_tune:
            tuned = stage.fine_tune
            text += (
                f"\n## Fine-tuning\n\nFirst layer: {tuned.started_from}; AdamW at {tuned.rate:g}, batches of "
                f"{tuned.batch}; epoch {tuned.best} is kept.\n\n"
            )
            rows = [
                [
                    str(number),
                    "" if epoch.train_loss is None else f"{epoch.train_loss:.4f}",
                    f"{epoch.val_loss:.4f}",
                    f"{epoch.rate:.3g}",
                ]
                for number, epoch in enumerate(tuned.history)
            ]
            text += table(["epoch", "train loss", "validation loss", "rate"], rows)
    return text
