"""A result file says what was measured."""

from __future__ import annotations

from benchmarks.result_file import commit


def test_the_commit_is_named() -> None:
    assert len(commit().removesuffix("-dirty")) == 40
