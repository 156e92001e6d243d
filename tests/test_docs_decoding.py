"""The numbers of docs/decoding.md are those of the committed results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent


def _result(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / name).read_text(encoding="utf-8"))


def test_the_table_of_transfer_syntaxes_is_the_result() -> None:
    page = (ROOT / "docs" / "decoding.md").read_text(encoding="utf-8")
    syntaxes = _result("file_to_input.json")["syntaxes"]
    assert syntaxes
    for name, found in syntaxes.items():
        usual, ours = found["total"]["usual"], found["total"]["promptray"]
        ratio = f"{ours['ratio']:.2f} ({ours['ratio_q1']:.2f}-{ours['ratio_q3']:.2f})"
        assert f"| {name} | {usual['median_ms']:.0f} | {ours['median_ms']:.0f} | {ratio} |\n" in page


def test_what_a_lower_resolution_does_to_logits_is_the_result() -> None:
    page = (ROOT / "docs" / "decoding.md").read_text(encoding="utf-8")
    found = _result("reduced_decode.json")["agreement"]
    mean, most = found["mean_logit_difference"], found["largest_logit_difference"]
    moved = f"{mean:.3f} in the mean and {most:.3f} at most"
    share = (
        f"({100 * found['mean_difference_over_spread']:.1f} % and "
        f"{100 * found['largest_difference_over_spread']:.1f} % of a finding's spread over the films)"
    )
    assert f"On {found['films']} films" in page
    assert f"{moved} {share}" in page
    assert found["least_rank_correlation"] == 1.0, "the page says that no order changed"
