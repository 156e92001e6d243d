"""The examples in docstrings and in docs/reports.md give what they show."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "reports.md"
MODULES = ("align", "sections", "triplets", "words")


@pytest.mark.parametrize("name", MODULES)
def test_a_module(name: str) -> None:
    module = importlib.import_module(f"promptray.calibrate.reports.{name}")
    done = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert (done.attempted > 0, done.failed) == (True, 0)


def test_the_page() -> None:
    done = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert (done.attempted, done.failed) == (2, 0)
