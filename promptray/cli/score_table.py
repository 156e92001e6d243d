"""Scores as tables for people: the scores, the time of each stage, what ran, and what to be careful about."""

from __future__ import annotations

from collections.abc import Sequence

import click

from promptray.cli.output import print_table, visible
from promptray.runtime.result import FindingScore, Result

_WIDEST = 6  # columns of scores that still fit a terminal
_FLAG = "!"


def print_results(results: Sequence[Result]) -> None:
    """Print the results of one scorer, head by head."""
    heads = list(dict.fromkeys(finding.head for finding in results[0].document.findings))
    for head in heads:
        rows = [[each for each in result.document.findings if each.head == head] for result in results]
        _print_head(head if len(heads) > 1 else None, [result.name for result in results], rows)
        if head in results[0].summaries:
            _print_summaries(head, results)
    _print_timing(results)
    backend = results[0].document.backend
    click.echo(
        f"Backend: {backend.name} {backend.version} on {backend.device}, {backend.precision}, "
        f"{backend.threads} threads. Why: {backend.reason}."
    )
    _print_notices(results)


def _print_head(head: str | None, names: Sequence[str], scored: Sequence[Sequence[FindingScore]]) -> None:
    """Print the scores of one head. With few findings a row is an image, otherwise a row is a finding."""
    findings, of = scored[0], "" if head is None else f" of {head}"
    title = f"Scores{of}: raw logits. They rank images for one finding; they are not probabilities."
    title += _brackets(findings) + _calibrated(findings)
    if len(findings) <= _WIDEST:
        rows = [[name, *map(_value, own)] for name, own in zip(names, scored, strict=True)]
        _print_scores(title, ["image", *(finding.key for finding in findings)], rows)
        return
    for start in range(0, len(names), _WIDEST):
        some = scored[start : start + _WIDEST]
        rows = [[finding.key, *(_value(own[n]) for own in some)] for n, finding in enumerate(findings)]
        _print_scores(title, ["finding", *names[start : start + _WIDEST]], rows)


def _value(finding: FindingScore) -> str:
    score = finding.score
    value = score.sigmoid if score.softmax is None else score.softmax
    shown = f"{score.logit:+.3f}" + ("" if value is None else f" ({value:.3f})")
    if score.probability is not None:
        shown += f" p={score.probability:.3f}"
    return f"{shown} {_FLAG}" if score.flag else shown


def _brackets(findings: Sequence[FindingScore]) -> str:
    """Say what stands in brackets behind the logits."""
    if any(finding.score.softmax is not None for finding in findings):
        return " In brackets the softmax over the alternatives: it compares them with each other only."
    if any(finding.score.sigmoid is not None for finding in findings):
        return " In brackets their sigmoid, which nobody calibrated."
    return ""


def _calibrated(findings: Sequence[FindingScore]) -> str:
    """Say what p and the flag are, where there are any."""
    if not any(finding.score.calibration for finding in findings):
        return ""
    return f" p: probability as this site calibrated it. {_FLAG}: at or above this site's threshold."


def _print_scores(title: str, columns: list[str], rows: list[list[str]]) -> None:
    print_table(title, columns, rows, right=tuple(range(1, len(columns))))


def _print_summaries(head: str, results: Sequence[Result]) -> None:
    summaries = [(result.name, result.summaries[head]) for result in results]
    first = summaries[0][1]
    columns = ["image", "most likely", *(["expected rank"] if first.expected_rank is not None else [])]
    columns += list(first.groups)
    rows = []
    for name, summary in summaries:
        rank = [] if summary.expected_rank is None else [f"{summary.expected_rank:.2f}"]
        groups = [f"{share:.3f}" for share in summary.groups.values()]
        rows.append([name, summary.most_likely, *rank, *groups])
    print_table("Together (shares of the softmax)", columns, rows, right=tuple(range(2, len(columns))))


def _print_timing(results: Sequence[Result]) -> None:
    stages = list(results[0].timing)
    rows = [[result.name, *(f"{result.timing[stage]:.1f}" for stage in stages)] for result in results]
    print_table("Milliseconds", ["image", *stages], rows, right=tuple(range(1, len(stages) + 1)))


def _print_notices(results: Sequence[Result]) -> None:
    """Print every notice once, with the images it concerns."""
    concerned: dict[tuple[str, str], list[str]] = {}
    for result in results:
        for notice in result.notices:
            concerned.setdefault((notice.code, notice.message), []).append(result.name)
    for (code, message), names in concerned.items():
        images = "every image" if len(names) == len(results) else ", ".join(names)
        click.echo(visible(f"Note [{code}] {message} ({images})"))
