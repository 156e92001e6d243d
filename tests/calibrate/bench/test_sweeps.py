"""Sweeps vary what they say they vary, and nothing else; `auto` is what it is in every one."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from promptray.calibrate.bench import sweeps
from promptray.calibrate.bench.opening import Opening
from promptray.calibrate.bench.report import BenchReport, SweepName
from promptray.calibrate.bench.run import Settings, run_bench
from promptray.runtime.backends import HOST, OPENVINO, choice
from promptray.runtime.backends.host_settings import GATED, HostSettings
from promptray.runtime.bundle import Bundle
from promptray.runtime.cores import DECODE_THREADS
from promptray.runtime.scorer import Scorer
from promptray.runtime.site import Site
from promptray.runtime.tuning import Measured, Tuning, Way, machine_here, software_here, write_tuning
from tests.calibrate.bench.fakes import CountingClock
from tests.fuzz.small_bundle import write_small
from tests.openvino_bundle import for_openvino

USUAL = Way(backend=HOST, threads=2, settings=GATED)
CHOSEN = Way(backend=OPENVINO, threads=1, settings=HostSettings(hint="throughput"))


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The miniature bundle, for both backends of the processor. Read only."""
    folder = tmp_path_factory.mktemp("sweeps")
    write_small(folder)
    return for_openvino(folder / "small.bundle", folder / "both.bundle")


@pytest.fixture
def tuned(both: Bundle, tmp_path: Path) -> Path:
    """A site where OpenVINO on one thread was measured as the fastest."""
    facts: dict[str, Any] = {"milliseconds": 10.0, "ratio": 1.0, "low": 1.0, "high": 1.0}
    tuning = Tuning(
        machine=machine_here(), software=software_here(), date="2026-11-23", images=16, findings=2, rounds=21,
        chosen=CHOSEN, measured=[Measured(way=way, **facts) for way in (USUAL, CHOSEN)],
    )  # fmt: skip
    (tmp_path / "site").mkdir()
    write_tuning(Site.open(tmp_path / "site", both.hash), tuning)
    return tmp_path / "site"


@pytest.fixture(autouse=True)
def _two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sweeps, "host_threads", lambda _: 2)
    monkeypatch.setattr(sweeps, "PROMPTS", (2,))


def run(opening: Opening, *names: SweepName) -> BenchReport:
    image = opening.bundle / "golden" / "images" / "000.png"
    settings = Settings(budget=1.0, sweeps=names, starts=False)
    return run_bench(opening, [image], {"modality": "DX"}, settings, clock=CountingClock())


@dataclass(frozen=True)
class Watched(Opening):
    """Takes down what decodes JPEG 2000 whenever a scorer is opened for a number of threads."""

    decoded_with: list[str | None] = field(default_factory=list)

    def scorer_alike(self, like: Scorer, threads: int) -> Scorer:
        self.decoded_with.append(os.environ.get(DECODE_THREADS))
        return super().scorer_alike(like, threads)


def test_threads_are_those_that_decode_too(both: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DECODE_THREADS, "7")
    opening = Watched(both.path, site=None)
    report = run(opening, "threads")
    assert [row.setting for row in report.sweeps[0].rows] == ["1", "2"]
    assert opening.decoded_with == ["1", "2"]
    assert os.environ[DECODE_THREADS] == report.protocol.decode_threads == "7"


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Way]:
    """Every backend of the processor that is made, as it is made."""
    found: list[Way] = []
    real = choice.load_backend

    def load(name: Any, *, threads: int | None = None, settings: HostSettings = GATED) -> Any:
        made = real(name, threads=threads, settings=settings)
        found.append(Way(backend=name, threads=made.threads, settings=settings))
        return made

    monkeypatch.setattr(choice, "load_backend", load)
    return found


def test_what_a_site_has_measured_is_what_is_swept(both: Bundle, tuned: Path, loaded: list[Way]) -> None:
    report = run(Opening(both.path, site=tuned), "prompts", "threads")
    assert report.backend.name == OPENVINO
    assert all(row.not_run is None for sweep in report.sweeps for row in sweep.rows)
    # The scorer, the prompts, then one thread and two: all as `tune` chose.
    threads = [each.threads for each in loaded]
    assert threads[:3] == [1, 1, 1]
    assert len(threads) == 4
    assert {(each.backend, each.settings) for each in loaded} == {(OPENVINO, CHOSEN.settings)}


def test_without_such_a_site_it_is_the_gated_settings_that_are_swept(both: Bundle, loaded: list[Way]) -> None:
    run(Opening(both.path, site=None), "prompts", "threads")
    assert len(loaded) == 4
    assert {(each.backend, each.settings) for each in loaded} == {(HOST, GATED)}


def test_openvino_has_the_stages_of_a_processor_and_the_notes_say_so(both: Bundle) -> None:
    report = run(Opening(both.path, backend=OPENVINO, site=None))
    names = [stage.name for stage in report.scenarios[0].stages]
    assert names == ["read", "decode", "window", "check", "resize", "image", "head", "post", "rest"]
    assert not any("one enqueue" in note for note in report.notes)
    assert any("host-to-device and device-to-host: none" in note for note in report.notes)
