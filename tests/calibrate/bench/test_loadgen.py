"""MLCommons' own LoadGen as a second opinion: our rule is its rule."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping

import pytest

from promptray.calibrate.bench.loadgen import parse, run_loadgen
from promptray.calibrate.bench.percentile import fewest_queries, slower_allowed
from promptray.runtime.errors import PromptRayError, ScoringError
from tests.calibrate.bench.fakes import FakeClock, FakeSystem

HERE = sys.platform == "linux" and platform.machine() == "x86_64"
needs_wheel = pytest.mark.skipif(not HERE, reason="mlcommons-loadgen has wheels for Linux on x86-64 only")


@needs_wheel
@pytest.mark.parametrize("fewest", [64, 201, 3000])
def test_loadgen_discards_as_many_queries_as_our_rule(fewest: int) -> None:
    """LoadGen decides by its own clock how many more it asks; its verdict on that number is ours."""
    system = FakeSystem(FakeClock(), lambda call: 1.0)
    found = run_loadgen(system, seconds=0.001, alone=1e-5, seed=3, queries=fewest)
    assert found.queries == len(system.asked) >= fewest
    assert set(system.asked) <= {0, 1, 2}
    assert found.discarded == slower_allowed(found.queries, 90) - 1
    assert found.early_stopping_p90_ms is not None
    assert found.early_stopping_p90_ms >= found.p90_ms >= found.p50_ms > 0
    assert found.fewest_queries == fewest_queries(90)


@needs_wheel
def test_a_fault_while_loadgen_asks_is_raised_when_it_is_done() -> None:
    class Broken(FakeSystem):
        def one(self, image: int) -> Mapping[str, float]:
            raise ScoringError("score.not-finite", "made to fail")

    with pytest.raises(ScoringError, match="made to fail"):
        run_loadgen(Broken(FakeClock(), lambda call: 0.0), seconds=0.001, alone=1e-4, seed=3)


def test_without_the_wheel_it_is_said_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlperf_loadgen", None)
    with pytest.raises(PromptRayError) as caught:
        run_loadgen(FakeSystem(FakeClock(), lambda call: 1.0), 1.0, 0.1, 0)
    assert caught.value.code == "extra.missing"


def test_a_log_of_too_few_queries_has_no_estimate() -> None:
    said = " * Only processed 58 queries. * Need to process at least 64 queries for early stopping."
    values = {
        "loadgen_version": "6.0.17",
        "early_stopping_result": said,
        "result_query_count": 58,
        "result_50.00_percentile_latency_ns": 2_000_000,
        "result_90.00_percentile_latency_ns": 3_000_000,
    }
    lines = [
        f':::MLLOG {{"key": "{key}", "value": {value!r}}}'.replace("'", '"') for key, value in values.items()
    ]
    found = parse("\n".join(["no entry", *lines]))
    assert (found.queries, found.p50_ms, found.p90_ms) == (58, 2.0, 3.0)
    assert (found.early_stopping_p90_ms, found.discarded, found.fewest_queries) == (None, None, 64)
