"""The table of what pays in docs/quantisation.md is what the committed result says."""

from __future__ import annotations

import json
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "quantisation.md").read_text(encoding="utf-8").partition("## What pays")[2]
GRAPHS = json.loads((ROOT / "benchmarks" / "results" / "quantisation.json").read_text(encoding="utf-8"))[
    "graphs"
]
SCHEMES = ("int8 Q/DQ", "int8 dynamic", "int8 convolutions", "8-bit weights")
#: Those where a scheme would say nothing: its products are convolutions, or are not.
SHOWN = {
    "ViT-B/16": ("ViT-B/16, random weights", {"int8 Q/DQ", "int8 dynamic", "8-bit weights"}),
    "BERT-base, one prompt": ("BERT-base, random weights", {"int8 Q/DQ", "int8 dynamic", "8-bit weights"}),
    "ConvNeXt-Base": ("ConvNeXt-Base, random weights", {"int8 Q/DQ", "int8 dynamic", "8-bit weights"}),
    "SqueezeNet 1.1": ("SqueezeNet 1.1, trained", {"int8 Q/DQ", "int8 convolutions"}),
}


def test_the_table_states_what_was_measured() -> None:
    lines = PAGE.partition("\n\n| graph |")[2].partition("\n\n")[0].splitlines()[2:]
    stated = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    expected = []
    for name, (graph, shown) in SHOWN.items():
        found = GRAPHS[graph]["schemes"]
        cells = [
            f"{found[each]['ratio']:.2f}, {found[each]['size_ratio']:.2f}" if each in shown else ""
            for each in SCHEMES
        ]
        expected.append([name, *cells])
    assert [[re.sub(" of the (time|size)", "", cell) for cell in row] for row in stated] == expected
