"""New processes that only measure how they begin."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptray.calibrate.bench.cold import PARTS, once, start_of
from promptray.runtime.errors import PromptRayError
from tests.fuzz.small_bundle import write_small


def test_a_process_that_fails_is_an_error_without_its_words(tmp_path: Path) -> None:
    with pytest.raises(PromptRayError) as caught:
        once(tmp_path / "none.bundle", tmp_path / "doe.png", {}, {})
    assert caught.value.code == "bench.start"
    assert str(tmp_path) not in str(caught.value.to_json())
    assert "doe" not in str(caught.value.to_json())


def test_the_start_is_the_median_of_its_rounds_and_their_greatest_memory() -> None:
    taken = [
        {**dict.fromkeys(PARTS, float(each)), "peak": peak} for each, peak in ((1, 50), (2, None), (9, 70))
    ]
    start = start_of(taken)
    assert (start.rounds, start.peak_bytes) == (3, 70)
    assert [start.seconds[part].value for part in PARTS] == [2, 2, 2, 2]
    assert start_of([{**dict.fromkeys(PARTS, 1.0), "peak": None}]).peak_bytes is None


def test_further_images_are_scored_and_one_that_is_refused_ends_nothing(tmp_path: Path) -> None:
    write_small(tmp_path)
    bundle = tmp_path / "small.bundle"
    image, broken = bundle / "golden" / "images" / "000.png", tmp_path / "doe.png"
    broken.write_bytes(b"no image")
    options = {"site": None, "threads": 1}
    found = once(bundle, image, {"modality": "DX"}, options, memory=True, more=[broken, image])
    assert found["peak"] is None or found["peak"] > 10**7
    assert found["first score"] > 0
