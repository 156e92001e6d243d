"""Times of engines in words, whichever of them are there."""

from __future__ import annotations

import pytest

from promptray.cli.engine_table import time_words
from promptray.runtime.engines.facts import EngineSpeed


@pytest.mark.parametrize(
    ("speed", "words"),
    [
        (None, "not measured"),
        (EngineSpeed(milliseconds=1.5), "1.50 ms"),
        (EngineSpeed(milliseconds=1.5, beside="fp16", ratio=0.75), "1.50 ms, 0.75 of fp16"),
        (EngineSpeed(milliseconds=1.5, beside="fp16"), "1.50 ms"),
        (EngineSpeed(milliseconds=1.5, ratio=0.75), "1.50 ms"),
    ],
)
def test_times(speed: EngineSpeed | None, words: str) -> None:
    assert time_words(speed) == words
