"""The examples and tables of docs/probability.md are what the code does."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from promptray.calibrate.probability.fit import WAYS
from promptray.runtime.picture import NOTICES
from promptray.runtime.result import CalibrationRef

PAGE = (Path(__file__).parents[1] / "docs" / "probability.md").read_text(encoding="utf-8")


def test_the_examples_run_one_after_the_other() -> None:
    names: dict[str, Any] = {}
    for example in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(example, "docs/probability.md", "exec"), names)
    assert names["fitted"].brier.value < names["fitted"].brier_of_prevalence
    assert names["point"].sensitivity.high > 0.9


def test_the_tables_state_what_there_is() -> None:
    least = re.findall(r"^\| `(\w+)` \|.*\| (\d+), (\d+) \|$", PAGE, re.M)
    assert {name: (int(one), int(other)) for name, one, other in least} == {
        name: (way.least, way.least) for name, way in WAYS.items()
    }
    notices = re.findall(r"^\| `(calibration-\w+)` \|", PAGE, re.M)
    assert notices == [code for code in NOTICES if code.startswith("calibration-")]
    assert all(f"`{name}`" in PAGE for name in CalibrationRef.__struct_fields__)
