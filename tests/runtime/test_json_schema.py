"""A schema does not depend on how a Python keeps docstrings."""

from __future__ import annotations

import msgspec

from promptray.runtime.json_schema import schema_of


class Inner(msgspec.Struct):
    value: int


class Outer(msgspec.Struct):
    description: str
    inner: list[Inner]


def test_indentation_of_docstrings_is_no_part_of_a_schema() -> None:
    flush, indented = "First line.\n\nSecond.\n", "First line.\n\n    Second.\n    "
    Inner.__doc__ = Outer.__doc__ = indented
    before = schema_of(Outer)
    Inner.__doc__ = Outer.__doc__ = flush
    assert schema_of(Outer) == before
    assert before["$defs"]["Outer"]["description"] == "First line.\n\nSecond."
    assert before["$defs"]["Outer"]["properties"]["description"] == {"type": "string"}
