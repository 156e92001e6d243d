"""docs/batch.md names every column of the results."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa

from promptray.calibrate.batch.parts import SCHEMA

PAGE = (Path(__file__).parents[3] / "docs" / "batch.md").read_text(encoding="utf-8")


def _words(kind: Any) -> str:
    """A type of Arrow as the page writes it."""
    if pa.types.is_list(kind):
        return f"list of {_words(kind.value_type)}"
    return "struct" if pa.types.is_struct(kind) else str(kind)


def test_every_column_is_documented_with_its_type() -> None:
    table = re.findall(r"^\| (`.*?) \| (.*?) \| (.*) \|$", PAGE, re.MULTILINE)
    found: dict[str, str] = {}
    for names, kinds, _ in table:
        columns, stated = re.findall(r"`(\w+)`", names), kinds.split(", ")
        found |= dict(zip(columns, stated * len(columns) if len(stated) == 1 else stated, strict=True))
    assert found == {field.name: _words(field.type) for field in SCHEMA}
    score = SCHEMA.field("scores").type.value_type
    row = next(meaning for names, _, meaning in table if names == "`scores`")
    assert [name for name in (field.name for field in score) if f"`{name}`" not in row] == []
