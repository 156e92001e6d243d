"""The choice among measured ways, with given times: no test depends on how busy a machine is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from promptray.calibrate import tune as module
from promptray.calibrate.tune import confirmed, fastest, tune, ways
from promptray.runtime.backends import HOST, OPENVINO
from promptray.runtime.backends.host_settings import GATED, HostSettings
from promptray.runtime.bundle import Bundle
from promptray.runtime.errors import ScoringError
from promptray.runtime.scorer import Scorer
from promptray.runtime.site import Site
from promptray.runtime.site_calibration import keep_calibrations
from promptray.runtime.tuning import LeftOut, Measured, Way
from tests.fuzz.small_bundle import write_small
from tests.openvino_bundle import for_openvino
from tests.runtime.test_site_calibration import made as calibrated

USUAL = Way(backend=HOST, threads=4, settings=GATED)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The miniature bundle. Read only."""
    folder = tmp_path_factory.mktemp("tune")
    write_small(folder)
    return Bundle.open(folder / "small.bundle")


@pytest.fixture(scope="module")
def both(plain: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The same for both backends of the processor. Read only."""
    return for_openvino(plain.path, tmp_path_factory.mktemp("tune-both") / "both.bundle")


def way(threads: int) -> Way:
    return Way(backend=OPENVINO, threads=threads, settings=GATED)


def timed(way: Way, ratio: float, low: float, high: float) -> Measured:
    return Measured(way=way, milliseconds=10 * ratio, ratio=ratio, low=low, high=high)


@pytest.mark.parametrize(
    ("others", "chosen"),
    [
        ([], USUAL),
        ([timed(way(1), 1.2, 1.1, 1.3)], USUAL),
        ([timed(way(1), 0.8, 0.5, 1.0)], USUAL),
        ([timed(way(1), 0.95, 0.9, 0.99)], way(1)),
        ([timed(way(1), 0.95, 0.9, 0.99), timed(way(2), 0.5, 0.4, 0.6)], way(2)),
        ([timed(way(1), 0.6, 0.2, 1.4), timed(way(2), 0.9, 0.85, 0.95)], way(2)),
    ],
)
def test_the_fastest_beyond_the_noise_is_chosen(others: list[Measured], chosen: Way) -> None:
    assert fastest([timed(USUAL, 1.0, 1.0, 1.0), *others]) == chosen


def test_the_fastest_is_measured_again_before_it_is_chosen() -> None:
    """The best of several noisy ones is lucky: where its lead is gone, the next one has to prove itself."""
    lucky, real, slow = timed(way(1), 0.5, 0.4, 0.6), timed(way(2), 0.8, 0.7, 0.9), timed(way(3), 2, 1.9, 2.1)
    first = [timed(USUAL, 1.0, 1.0, 1.0), lucky, real, slow]
    later = {way(1): timed(way(1), 1.0, 0.9, 1.1), way(2): timed(way(2), 0.85, 0.8, 0.9)}
    asked: list[Way] = []

    def again(one: Way) -> Measured | LeftOut:
        asked.append(one)
        return later[one] if one in later else LeftOut(way=one, reason="it fails")

    found, failed = confirmed(first, again)
    assert asked == [way(1), way(2)]
    assert (found, failed) == ([first[0], later[way(1)], later[way(2)], slow], [])
    assert fastest(found) == way(2)
    del later[way(2)]
    found, failed = confirmed(first, again)
    assert ([each.way for each in failed], fastest(found)) == ([way(2)], USUAL)
    asked.clear()
    assert confirmed([first[0], slow], again) == ([first[0], slow], [])
    assert asked == []


def test_ways_are_those_that_the_bundle_was_gated_on(plain: Bundle, both: Bundle) -> None:
    usual, *others = ways(plain.manifest, 4, openvino=True)
    assert usual == USUAL
    assert {each.backend for each in others} == {HOST}
    assert {each.backend for each in ways(both.manifest, 4, openvino=False)} == {HOST}
    found = ways(both.manifest, 4, openvino=True)
    assert {each.threads for each in found if each.backend == OPENVINO} == {4, 2, 1}
    assert len(found) == len(set(found))
    assert [each.threads for each in ways(both.manifest, 1, openvino=True)] == [1] * 5
    assert {each.settings.hint for each in found} == {"latency"}, "calls come one by one"


def test_graphs_that_were_changed_run_as_far_rewritten_as_they_were_gated(
    both: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(both.manifest), "gated_for", lambda self, consumers: object())
    assert {each.settings.optimisation for each in ways(both.manifest, 2, openvino=True)} == {"all"}


def given(alternatives: Mapping[str, Callable[[], object]]) -> Mapping[str, Mapping[str, float]]:
    """Run each once, and say that the other way takes half of the usual one's time."""
    for call in alternatives.values():
        call()
    shares = {"usual": 1.0, "way": 0.5}
    return {
        name: {"median_ms": 8 * share, "ratio": share, "ratio_q1": share, "ratio_q3": share}
        for name, share in shares.items()
        if name in alternatives
    }


def test_a_way_that_fails_its_golden_pictures_is_left_out_and_says_why(
    both: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    golden = Scorer.check_golden

    def broken(self: Scorer) -> object:
        if self.backend.name == OPENVINO:
            raise ScoringError("backend.failed", "it gives other numbers")
        return golden(self)

    monkeypatch.setattr(Scorer, "check_golden", broken)
    found = tune(both.path, site=None, measure=given)
    assert {each.way.backend for each in found.measured} == {HOST}
    assert {each.way.backend for each in found.left_out} == {OPENVINO}
    assert {each.reason for each in found.left_out} == {"backend.failed: it gives other numbers"}
    assert found.measured[0].way == module.ways(both.manifest, found.machine.cores, openvino=False)[0]
    assert found.chosen == found.measured[1].way
    assert (found.images, found.findings) == (16, 2)


def test_a_way_that_calibrations_do_not_hold_on_is_left_out_and_names_them(
    both: Bundle, tmp_path: Path
) -> None:
    site = tmp_path / "site"
    site.mkdir()
    with Scorer.open(both.path, site=None, backend=HOST) as scorer:
        (key, *_) = scorer.prompts.state.by_name
        calibration = calibrated(scorer, key)
    keep_calibrations(Site.open(site, both.hash), calibration.head, [calibration])
    found = tune(both.path, site=site, measure=given)
    assert {each.way.backend for each in found.left_out} == {OPENVINO}
    expected = (
        f"calibrations of the site do not hold on it: {calibration.head}: {calibration.calibration.finding}"
    )
    assert {each.reason for each in found.left_out} == {expected}
    assert {each.way.backend for each in found.measured} == {found.chosen.backend} == {HOST}


def test_rounds_take_turns_and_rest_before_each(both: Bundle, tmp_path: Path) -> None:
    found = tune(both.path, site=None, rounds=5)
    assert found.rounds == 5
    assert len(found.measured) == len(ways(both.manifest, found.machine.cores, openvino=True))
    assert all(0 < each.low <= each.ratio <= each.high for each in found.measured)
    assert found.measured[0].ratio == 1
    assert HostSettings() == GATED
