"""The table of bundles in docs/quantisation.md is what the committed result says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "quantisation.md").read_text(encoding="utf-8").partition("## What passes")[2]
RESULT = json.loads((ROOT / "benchmarks" / "results" / "quantised_bundles.json").read_text(encoding="utf-8"))
EVERYTHING = "everything int8"


def row(model: str, scheme: str) -> list[str]:
    """Return what a row has to say of the image graph, and of the gate on the scores."""
    found: dict[str, Any] = RESULT["models"][model]
    graph = found["graphs"]["image"][scheme]
    (gate,) = (each for name, each in found["variants"][scheme]["gates"].items() if name.startswith("head-"))
    time = f"{graph['ratio']:.2f} ({graph['ratio_q1']:.2f} to {graph['ratio_q3']:.2f})"
    missed = ", ".join(
        f"`{each['name']}`" for each in gate["not_passed"] if each["verdict"] == gate["verdict"]
    )
    return [model, scheme, f"{graph['size_ratio']:.2f}", time, f"{gate['verdict']}: {missed}"]


def test_the_table_states_what_was_measured() -> None:
    stated = [
        [cell.strip().replace("everything", EVERYTHING) for cell in line.strip("|").split("|")]
        for line in re.findall(r"^\| (?:reference model|SqueezeNet 1\.1) \|.*\|$", PAGE, re.M)
    ]
    expected = [
        row(model, scheme) for model, found in RESULT["models"].items() for scheme in found["variants"]
    ]
    assert stated == expected


def test_the_text_states_what_was_gated() -> None:
    (counted,) = {
        (gate["images"], gate["patients"])
        for found in RESULT["models"].values()
        for variant in found["variants"].values()
        for gate in variant["gates"].values()
    }
    assert f"{counted[0]} real radiographs of {counted[1]} patients" in PAGE
    gate = RESULT["models"]["reference model"]["variants"]["int8-qdq"]["gates"]["head-findings"]
    needed = {each["name"]: each["patients_needed"] for each in gate["not_passed"]}
    assert f"{needed['flips']} patients" in PAGE
    assert f"{needed['finding_flips']:,}" in PAGE


def test_no_bundle_was_written_that_did_not_pass() -> None:
    for found in RESULT["models"].values():
        for name, variant in found["variants"].items():
            passed = all(gate["verdict"] == "passed" for gate in variant["gates"].values())
            assert variant["bundle_written"] == (passed and variant["refusal"] is None)
            if name == EVERYTHING:
                assert variant["refusal"] == "gate.failed"
