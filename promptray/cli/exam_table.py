"""An examination as tables for people: its scores, the images they were made of, and what is missing."""

from __future__ import annotations

import click

from promptray.cli.output import print_table, visible
from promptray.runtime.exam_result import ExamFinding, ExamResult, ExamScores
from promptray.runtime.finding_names import shown

_SIDES = {"L": "left", "R": "right"}


def print_exam(result: ExamResult) -> None:
    """Print an examination; a column is a side or the whole."""
    parts = {_SIDES[side]: scores for side, scores in result.sides.items()}
    if result.examination is not None:
        parts["examination"] = result.examination
    _print_scores(parts)
    _print_summaries(parts)
    images = [
        [str(image.number), image.name, image.view, "declared" if image.view_declared else "tags"]
        for image in result.document.images
    ]
    images += [
        [str(image.number), image.name, image.view or "", f"left out: {image.code}"]
        for image in result.left_out
    ]
    images.sort(key=lambda row: int(row[0]))
    print_table("Images", ["", "image", "view", "by"], images, right=(0,))
    if result.missing_views:
        click.echo(f"Missing views: {', '.join(result.missing_views)}.")
    click.echo("Rule of the bundle: " + " ".join(result.document.rule.words))
    for notice in result.notices:
        click.echo(f"Note [{notice.code}] {notice.message}")
    for image in result.document.images:
        for note in image.result.notices:
            click.echo(visible(f"Note [{note.code}] {note.message} ({image.name})"))


def _print_scores(parts: dict[str, ExamScores]) -> None:
    first = next(iter(parts.values()))
    rows = [
        [shown(name), finding.of, *(_value(scores.findings[n]) for scores in parts.values())]
        for n, (name, finding) in enumerate(first.scores.items())
    ]
    title = "Scores, pooled over views. They are not probabilities of a disease. In brackets the views."
    print_table(title, ["finding", "of", *parts], rows, right=tuple(range(2, len(parts) + 2)))


def _value(finding: ExamFinding) -> str:
    sign = "+" if finding.of == "logit" else ""
    return f"{finding.value:{sign}.3f} ({', '.join(finding.views)})"


def _print_summaries(parts: dict[str, ExamScores]) -> None:
    for number, first in enumerate(next(iter(parts.values())).summaries):
        rows = []
        for name, scores in parts.items():
            summary = scores.summaries[number]
            rank = [] if summary.expected_rank is None else [f"{summary.expected_rank:.2f}"]
            groups = [f"{share:.3f}" for share in summary.groups.values()]
            rows.append([name, summary.most_likely, *rank, *groups])
        columns = ["", "most likely", *(["expected rank"] if first.expected_rank is not None else [])]
        columns += list(first.groups)
        right = tuple(range(2, len(columns)))
        print_table(f"Together: {first.head} (shares of the softmax)", columns, rows, right=right)
