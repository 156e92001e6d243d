"""docs/batch.md names every column of the results."""

from __future__ import annotations

import re
from pathlib import Path

from promptray.calibrate.batch.parts import SCHEMA

PAGE = (Path(__file__).parents[3] / "docs" / "batch.md").read_text(encoding="utf-8")


def test_every_column_is_documented_with_its_type() -> None:
    table = re.findall(r"^\| (`.*?) \| (.*?) \| (.*) \|$", PAGE, re.MULTILINE)
    types = {
        "int64": "int64",
        "int32": "int32",
        "string": "string",
        "list<element: string>": "list of string",
    }
    found: dict[str, str] = {}
    for names, kinds, _ in table:
        columns, stated = re.findall(r"`(\w+)`", names), kinds.split(", ")
        found |= dict(zip(columns, stated * len(columns) if len(stated) == 1 else stated, strict=True))
    own = {field.name: types.get(str(field.type), "list of struct") for field in SCHEMA}
    assert found == own
    score = SCHEMA.field("scores").type.value_type
    row = next(meaning for names, _, meaning in table if names == "`scores`")
    assert [name for name in (field.name for field in score) if f"`{name}`" not in row] == []
