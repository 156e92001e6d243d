"""The ranking in docs/quantisation.md is what the committed result says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from xml.etree import ElementTree

import msgspec

from promptray.calibrate.quantise.sensitivity_report import SensitivityReport, bars

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = (
    (ROOT / "docs" / "quantisation.md").read_text(encoding="utf-8").partition("### Of the reference model")[2]
)
RESULT = json.loads((RESULTS / "sensitivity.json").read_text(encoding="utf-8"))
RANKING = msgspec.convert(RESULT["ranking"], SensitivityReport)


def rows(title: str) -> list[list[str]]:
    """Return the cells of a table's lines, by the heading of its first column."""
    table = PAGE.partition(f"| {title} |")[2].partition("\n\n")[0]
    lines = table.splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_ranking_states_what_was_measured() -> None:
    total = sum(each.products for each in RANKING.sensitivity.groups)
    assert rows("group") == [
        [
            f"`{each.group}`" if each.group != "everything" else each.group,
            f"{each.products / total:.1%}",
            f"{each.spread:.2%}",
            f"{each.worst:.2%}",
        ]
        for each in (*RANKING.sensitivity.groups, RANKING.sensitivity.everything)
    ]
    assert f"{RANKING.sensitivity.images} radiographs" in PAGE


def test_the_trials_are_those_of_the_search() -> None:
    expected = []
    for trial in RESULT["search"]["trials"]:
        missed = [f"`{each['gate']}`" for each in trial["verdict"] if not each["inside"]]
        kept = ", ".join(f"`{name}`" for name in trial["kept"]) or "nothing"
        expected.append([kept, f"{trial['share']:.0%}", ", ".join(missed) or "none"])
    assert rows("kept high") == expected
    assert f"{RESULT['search']['images']} others" in PAGE
    (gate,) = RESULT["search"]["gates"].values()
    assert f"{gate['images']} of {gate['patients']} patients" in PAGE
    assert re.search(rf"was \*\*{gate['verdict']}\*\*", PAGE)


def test_the_plot_is_of_the_same_numbers() -> None:
    plot = (RESULTS / "sensitivity.svg").read_text(encoding="utf-8")
    ElementTree.fromstring(plot)
    assert plot == bars(RANKING.sensitivity, standalone=True) + "\n"
    assert "benchmarks/results/sensitivity.svg" in PAGE
