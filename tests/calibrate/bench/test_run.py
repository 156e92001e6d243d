"""A budget bounds a run, and says how high a percentile goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promptray.calibrate.bench import run as bench_run
from promptray.calibrate.bench.opening import Opening
from promptray.calibrate.bench.report import BenchReport
from promptray.calibrate.bench.run import Settings, run_bench
from promptray.calibrate.bench.sla import parse_sla
from tests.calibrate.bench.fakes import CountingClock
from tests.fuzz.small_bundle import write_small


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    write_small(folder)
    return folder / "small.bundle"


def bench(small: Path, budget: float, **settings: object) -> tuple[BenchReport, float]:
    """A report, and the time on a clock that counts its readings."""
    clock = CountingClock()
    image = small / "golden" / "images" / "000.png"
    chosen = Settings(budget=budget, starts=False, **settings)  # type: ignore[arg-type]
    report = run_bench(Opening(small, site=None), [image], {"modality": "DX"}, chosen, clock=clock)
    return report, clock.time


def test_a_longer_budget_gives_a_higher_percentile(small: Path) -> None:
    highest = []
    for budget in (0.5, 1.0, 2.0):
        report, time = bench(small, budget)
        latency = report.scenarios[0].latency
        assert latency is not None
        assert budget <= time < budget + 0.2
        highest.append([row.percentile for row in latency.percentiles][-1])
        assert latency.next_percentile is not None
        assert latency.next_percentile > highest[-1]
    assert highest == [50, 90, 95]


def test_what_a_scenario_leaves_goes_to_those_after_it(small: Path) -> None:
    report, time = bench(small, 1.5, samples=2, scenarios=("single-stream", "multi-stream", "offline"))
    assert 1.5 <= time < 1.7
    seconds = [scenario.seconds for scenario in report.scenarios]
    assert seconds == pytest.approx([0.5, 0.5, 0.5], abs=0.1)
    assert [scenario.images_per_query for scenario in report.scenarios] == [1, 2, None]


def test_a_condition_on_another_percentile_is_printed_too(small: Path) -> None:
    report, _ = bench(small, 1.0, sla=parse_sla("p85<1s"))
    latency = report.scenarios[0].latency
    assert latency is not None
    assert [row.percentile for row in latency.percentiles] == [50, 85, 90]
    assert report.sla[0].found == latency.percentiles[1].early_stopping_ms
    assert report.sla[0].met is True


def test_the_memory_of_a_new_process_is_that_of_the_largest_images(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[Path]] = []

    def once(bundle: Path, image: Path, *_: object, more: Sequence[Path], **__: object) -> dict[str, int]:
        asked.append([image, *more])
        return {"peak": 12345}

    monkeypatch.setattr(bench_run.cold, "once", once)
    monkeypatch.setattr(bench_run, "MOST_IN_MEMORY", 2)
    files = [tmp_path / f"{side}.png" for side in (40, 90, 60)]
    for file, side in zip(files, (40, 90, 60), strict=True):
        Image.fromarray(np.arange(side * side, dtype=np.uint32).astype(np.uint8).reshape(side, side)).save(
            file
        )
    settings = Settings(budget=1.0, starts=False, new_process_memory=True)
    opening = Opening(small, site=None)
    report = run_bench(opening, files, {"modality": "DX"}, settings, clock=CountingClock())
    assert report.memory.peak_bytes == 12345
    assert asked == [[files[1], files[2]]]
