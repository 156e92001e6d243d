"""What got slower beyond noise."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptray.calibrate.bench.against import change, read_report
from promptray.calibrate.bench.report import Median
from promptray.runtime.errors import PromptRayError


def between(low: float | None, value: float, high: float | None) -> Median:
    return Median(value=value, low=low, high=high, samples=20)


@pytest.mark.parametrize(
    ("old", "new", "verdict"),
    [
        (between(9, 10, 11), between(11.1, 12, 13), "slower"),
        (between(9, 10, 11), between(11, 12, 13), "within noise"),
        (between(9, 10, 11), between(7, 8, 8.9), "faster"),
        (between(9, 10, 11), between(9, 10, 11), "within noise"),
        (between(None, 10, None), between(90, 100, 110), "too few samples"),
        (between(9, 10, 11), between(None, 100, None), "too few samples"),
    ],
)
def test_times_differ_where_their_intervals_do_not_overlap(old: Median, new: Median, verdict: str) -> None:
    found = change("read", old, new)
    assert found.verdict == verdict
    assert found.ratio == new.value / old.value


def test_a_time_of_nothing_has_no_ratio() -> None:
    found = change("read", between(0, 0, 0), between(1, 2, 3))
    assert (found.ratio, found.verdict) == (None, "slower")
    assert change("read", between(0, 5e-324, 1e-300), between(1, 2, 3)).ratio is None  # no number has it


@pytest.mark.parametrize("content", [None, b"", b"{}", b'{"schema": "promptray-evaluation"}', b"\xff"])
def test_what_is_no_report_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "old.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PromptRayError) as caught:
        read_report(path)
    assert caught.value.code == "bench.report"
    assert str(tmp_path) not in str(caught.value.to_json())
