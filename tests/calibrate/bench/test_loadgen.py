"""MLCommons' own LoadGen as a second opinion: our rule is its rule."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import pytest

from promptray.calibrate.bench.loadgen import Plan, parse, run_loadgen
from promptray.calibrate.bench.percentile import fewest_queries, passes, slower_allowed
from promptray.calibrate.bench.report import Bound, ScenarioName
from promptray.runtime.errors import PromptRayError, ScoringError
from tests.calibrate.bench.fakes import FakeClock, FakeSystem
from tests.calibrate.bench.wheel import needs_wheel

SINGLE = Plan(scenario="single-stream", seconds=1.0, rate=10.0)


@needs_wheel
@pytest.mark.parametrize("fewest", [64, 201, 3000])
def test_loadgen_discards_as_many_queries_as_our_rule(fewest: int) -> None:
    """LoadGen decides by its own clock how many more it asks; its verdict on that number is ours."""
    system = FakeSystem(FakeClock(), lambda call: 1.0)
    found = run_loadgen(
        system, Plan(scenario="single-stream", seconds=0.001, rate=1e5, seed=3, queries=fewest)
    )
    assert found.queries == len(system.asked) >= fewest
    assert set(system.asked) <= {0, 1, 2}
    assert found.discarded == slower_allowed(found.queries, 90) - 1
    assert found.early_stopping_p90_ms is not None
    assert found.early_stopping_p90_ms >= found.p90_ms >= found.p50_ms > 0
    assert found.fewest_queries == fewest_queries(90)


@needs_wheel
def test_multi_stream_asks_for_several_images_and_estimates_the_same_percentile() -> None:
    system = FakeSystem(FakeClock(), lambda call: 1.0)
    plan = Plan(scenario="multi-stream", seconds=0.001, rate=1e4, samples=4, queries=201)
    found = run_loadgen(system, plan)
    assert found.queries >= 201
    assert found.images == 4 * found.queries == len(system.asked)
    assert found.discarded == slower_allowed(found.queries, 90) - 1
    assert found.early_stopping_p90_ms is not None


@needs_wheel
def test_offline_has_a_rate_of_images_and_no_latency() -> None:
    system = FakeSystem(FakeClock(), lambda call: 1.0)
    found = run_loadgen(system, Plan(scenario="offline", seconds=0.1, rate=1000))
    assert found.queries == 1
    assert found.images == len(system.asked) >= 100
    assert found.images_per_second is not None
    assert found.images_per_second > 0
    assert (found.p50_ms, found.p90_ms, found.met) == (None, None, None)


@needs_wheel
@pytest.mark.parametrize(
    ("queries", "ms", "met"), [(300, 10_000.0, True), (1, 10_000.0, False), (300, 1e-6, False)]
)
def test_server_is_held_to_a_bound_as_our_rule_has_it(queries: int, ms: float, met: bool) -> None:
    """Too few queries show no bound to hold, and one that no query meets does not hold."""
    system = FakeSystem(FakeClock(), lambda call: 0.0)
    bound = Bound(percentile=90, ms=ms)
    plan = Plan(scenario="server", seconds=0.001, rate=5e3, streams=2, bound=bound, queries=queries)
    found = run_loadgen(system, plan)
    assert found.queries == found.images == len(system.asked) >= queries
    assert (found.rate, found.bound, found.met) == (5e3, bound, met)
    assert passes(0 if ms > 1 else found.queries, found.queries, 90) == met


@needs_wheel
@pytest.mark.parametrize("scenario", ["single-stream", "multi-stream", "server", "offline"])
def test_a_fault_while_loadgen_asks_is_raised_when_it_is_done(scenario: ScenarioName) -> None:
    class Broken(FakeSystem):
        def one(self, image: int) -> Mapping[str, float]:
            raise ScoringError("score.not-finite", "made to fail")

    with pytest.raises(ScoringError, match="made to fail"):
        run_loadgen(Broken(FakeClock(), lambda call: 0.0), Plan(scenario=scenario, seconds=0.001, rate=1e4))


def test_without_the_wheel_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    with pytest.raises(PromptRayError) as caught:
        run_loadgen(FakeSystem(FakeClock(), lambda call: 1.0), SINGLE)
    assert caught.value.code == "extra.missing"


def test_a_log_of_too_few_queries_has_no_estimate() -> None:
    said = " * Only processed 58 queries. * Need to process at least 64 queries for early stopping."
    values = {
        "loadgen_version": "6.0.17",
        "early_stopping_result": said,
        "result_query_count": 58,
        "generated_samples_per_query": 1,
        "result_50.00_percentile_latency_ns": 2_000_000,
        "result_90.00_percentile_latency_ns": 3_000_000,
    }
    lines = [
        f':::MLLOG {{"key": "{key}", "value": {value!r}}}'.replace("'", '"') for key, value in values.items()
    ]
    found = parse("\n".join(["no entry", *lines]), SINGLE)
    assert (found.queries, found.p50_ms, found.p90_ms) == (58, 2.0, 3.0)
    assert (found.early_stopping_p90_ms, found.discarded, found.fewest_queries) == (None, None, 64)
