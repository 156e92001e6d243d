"""A budget bounds a run, and says how high a percentile goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from promptray.calibrate.bench import run as bench_run
from promptray.calibrate.bench.opening import Opening
from promptray.calibrate.bench.page import bench_html
from promptray.calibrate.bench.report import BenchReport, Bound
from promptray.calibrate.bench.run import Settings, run_bench
from promptray.calibrate.bench.sla import parse_sla
from promptray.calibrate.bench.table import sections
from tests.calibrate.bench.fakes import CountingClock
from tests.calibrate.bench.wheel import needs_wheel
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
    assert len(report.machine.at_work) == 3
    assert [scenario.images_per_query for scenario in report.scenarios] == [1, 2, None]


def test_a_server_that_served_too_few_is_reported_and_not_called_too_short(small: Path) -> None:
    report, _ = bench(small, 1.0, scenarios=("server",), rate=5000.0, sla=parse_sla("p50<1us"))
    latency = report.scenarios[0].latency
    assert latency is not None
    assert latency.unserved > len(latency.each)
    assert (latency.percentiles, report.sla[0].met, report.sla[0].found) == ([], False, None)
    assert read_back(report) == report
    assert "slower than any bound" in str([section.rows for section in sections(report)])
    assert bench_html(report)


@needs_wheel
def test_loadgen_asks_as_every_scenario_did(small: Path) -> None:
    scenarios = ("single-stream", "multi-stream", "server", "offline")
    bounds = [Bound(percentile=50, ms=60_000.0), Bound(percentile=90, ms=60_000.0)]
    report, _ = bench(small, 2.0, scenarios=scenarios, samples=2, rate=20.0, bounds=bounds, loadgen=True)
    assert tuple(each.scenario for each in report.loadgen) == scenarios
    single, multi, served, offline = report.loadgen
    assert (single.images, multi.images) == (single.queries, 2 * multi.queries)
    assert (served.rate, served.bound) == (20.0, bounds[0])
    assert offline.images_per_second
    assert "LoadGen's server scenario knows one bound: the first." in report.notes
    assert read_back(report) == report
    titles = [each.title for each in sections(report) if "by LoadGen" in each.title]
    assert len(titles) == 4
    assert "50 % within 60000 ms" in titles[2]
    assert bench_html(report)


@needs_wheel
def test_loadgen_is_not_given_a_rate_that_was_not_served_to_the_end(small: Path) -> None:
    report, _ = bench(small, 1.0, scenarios=("server",), rate=5000.0, loadgen=True)
    assert report.loadgen == []
    assert any(note.startswith("LoadGen did not run the server scenario") for note in report.notes)


def test_throttling_that_nobody_tells_of_is_printed_as_not_known(small: Path) -> None:
    report, _ = bench(small, 1.0)
    printed = []
    for found in (None, [], ["GPU: software power cap"]):
        machine = msgspec.structs.replace(report.machine, throttled=found)
        table = next(iter(sections(msgspec.structs.replace(report, machine=machine))))
        printed.append(dict(table.rows)["throttled"])
    assert printed == ["not known", "no", "GPU: software power cap"]


def read_back(report: BenchReport) -> BenchReport:
    return msgspec.json.decode(msgspec.json.encode(report), type=BenchReport)


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
