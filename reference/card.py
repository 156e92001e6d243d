"""The results section of the model card, made from ``results.json`` so that the two cannot disagree."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"


def results_section(results: Mapping[str, Any]) -> str:
    """Return the Markdown of the results."""
    data, run = results["data"], results["run"]
    lines = [
        f"Measured on {data['images']} images of {data['patients']} patients by {run['folds']}-fold "
        "cross-validation; no patient is in two folds. Each number is the mean AUROC over the wordings of "
        f"one meaning, with a 95 % bootstrap interval over patients. Command: `{run['command']}`",
    ]
    tasks = (task for task in results["results"] if " against " in task)
    for task in tasks:
        lines += [
            "",
            f"**{task[0].upper()}{task[1:]}**",
            "",
            "| meaning | wordings | AUROC (95 % interval) | worst wording |",
            "| --- | --- | --- | --- |",
        ]
        for meaning, kinds in results["results"][task].items():
            for kind, found in kinds.items():
                lines.append(
                    f"| {meaning} | {found['wordings']} {kind.replace('_', '-')} | {_with_interval(found)} "
                    f"| {found['worst']:.3f} |"
                )
    shuffled = results["results"]["shuffled prompts"]
    ratio = data["AUROC of the width-to-height ratio alone"]
    lines += [
        "",
        "- Pneumonia against normal with shuffled prompts (each image scored with a plain or a negated "
        f"wording by lot, {shuffled['shuffles']} times): {_with_interval(shuffled)}.",
        f"- The width-to-height ratio of the picture alone, without any model: {_with_interval(ratio)}.",
    ]
    return "\n".join(lines)


def update_card(card: Path, results: Mapping[str, Any]) -> None:
    """Replace what stands between the two marks of the card.

    Raises
    ------
    ValueError
        If the marks are missing.
    """
    text = card.read_text(encoding="utf-8")
    before, found_begin, rest = text.partition(BEGIN)
    _, found_end, after = rest.partition(END)
    if not (found_begin and found_end):
        raise ValueError(f"{card.name} lacks the marks {BEGIN} and {END}")
    card.write_text(f"{before}{BEGIN}\n{results_section(results)}\n{END}{after}", encoding="utf-8")


def _with_interval(found: Mapping[str, Any]) -> str:
    return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"
