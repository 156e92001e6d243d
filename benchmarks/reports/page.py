"""The measurement as a page of tables."""

from __future__ import annotations

from typing import Any

_HEAD = """\
# Report triplets against Open-I's manual codes

<!-- Written by `python -m benchmarks.reports --data DIR`. Do not edit. -->

Reports: {tuning} of the tuning half (rules and lexicon were adjusted on these), {untouched} of the
untouched half. A finding counts as said when the report has it as present; a second table counts uncertain
mentions, too. The coders also left findings out (old rib fractures in a report coded normal), so an F1 of 1
is not to be had. Intervals: 95 %, percentile bootstrap over reports, {draws} draws. How codes map to
findings: `benchmarks/reports/openi_codes.json`.
"""


def page(result: dict[str, Any]) -> str:
    """Return the measurement as Markdown."""
    text = _HEAD.format(**result["reports"], draws=result["draws"])
    for counted, halves in result["agreement"].items():
        text += f"\n## Counted as said: {counted}\n\n"
        text += "| half | findings | micro precision | micro recall | micro F1 | macro F1 |\n"
        text += "| --- | --- | --- | --- | --- | --- |\n"
        for half, agreement in halves.items():
            for group, means in agreement["means"].items():
                text += _mean_row(half, group, means)
    text += "\n## Each finding, counted as said: present\n\n"
    text += "| finding | coded | P tuning | R | F1 | coded | P untouched | R | F1 |\n"
    text += "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n"
    halves = result["agreement"]["present"]
    for one, other in zip(halves["tuning"]["findings"], halves["untouched"]["findings"], strict=True):
        text += f"| {one['finding']} | {_finding(one)} | {_finding(other)} |\n"
    text += "\n## Places of findings that both have\n\n| half | coded sides | same | coded regions | same |\n"
    text += "| --- | --- | --- | --- | --- |\n"
    for half, places in result["places"].items():
        cells = " | ".join(f"{each['coded']} | {_share(each)}" for each in places.values())
        text += f"| {half} | {cells} |\n"
    return f"{text}\nSpeed: {result['reports_per_second']} reports a second, one thread, shared machine.\n"


def _mean_row(half: str, group: str, means: dict[str, Any]) -> str:
    micro = means["micro"]
    intervals = {
        name: "{:.3f} to {:.3f}".format(*means[f"{name}_f1_interval"]) for name in ("micro", "macro")
    }
    rates = f"{micro['precision']:.3f} | {micro['recall']:.3f} | {micro['f1']:.3f} ({intervals['micro']})"
    return f"| {half} | {group} | {rates} | {means['macro_f1']:.3f} ({intervals['macro']}) |\n"


def _finding(row: dict[str, Any]) -> str:
    return f"{row['coded']} | {row['precision']:.2f} | {row['recall']:.2f} | {row['f1']:.2f}"


def _share(counts: dict[str, int]) -> str:
    return f"{counts['same'] / max(1, counts['coded']):.2f}"
