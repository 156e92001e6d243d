"""The examples and the table of docs/gates.md are what the code does."""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path
from typing import Any

from promptray.calibrate.gates import LIMITS

PAGE = (Path(__file__).parents[1] / "docs" / "gates.md").read_text(encoding="utf-8")


def test_the_examples_run_one_after_the_other() -> None:
    examples = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {}
    for example in examples:
        exec(compile(example, "docs/gates.md", "exec"), names)
    assert names["report"].verdict == "passed"


def test_the_table_states_the_limits() -> None:
    rows = re.findall(r"^\| `(\w+)` \|.*\| [≤≥] ([\d.]+)( %)? \| . ([\d.]+)(?: %)? \| . ([\d.]+)", PAGE, re.M)
    stated = {
        name: tuple(float(value) / (100 if percent else 1) for value in (fp16, int8, student))
        for name, fp16, percent, int8, student in rows
    }
    kinds = [asdict(LIMITS[kind]) for kind in ("fp16", "int8", "student")]
    assert stated == {name: tuple(kind[name] for kind in kinds) for name in kinds[0]}
