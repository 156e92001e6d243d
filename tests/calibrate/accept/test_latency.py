"""Conditions of the service: what must be measured for them, and when they are met."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from promptray.calibrate.accept.latency import bench_settings, latency_part
from promptray.calibrate.bench.report import Bound, SlaTerm
from promptray.calibrate.bench.sla import parse_sla


@pytest.mark.parametrize(
    ("sla", "scenarios", "starts"),
    [
        ("p99<50ms", ["single-stream"], False),
        ("mean<1s,cold<5s", ["single-stream"], True),
        ("max<1s,open<5s", ["single-stream"], True),
        ("p90<50ms,offline>5/s,server>2/s", ["single-stream", "server", "offline"], False),
    ],
)
def test_only_what_a_condition_is_about_is_measured(sla: str, scenarios: list[str], starts: bool) -> None:
    settings = bench_settings(parse_sla(sla), 10.0, 3)
    assert (list(settings.scenarios), settings.starts) == (scenarios, starts)
    assert (settings.budget, settings.seed, len(settings.sla)) == (10.0, 3, sla.count(",") + 1)


def test_the_server_is_held_to_every_percentile_of_the_conditions() -> None:
    settings = bench_settings(parse_sla("server>2/s,p97<50ms,mean<1s,p50<20ms"), 10.0, 0)
    assert settings.bounds == [Bound(percentile=97, ms=50), Bound(percentile=50, ms=20)]


@pytest.mark.parametrize("sla", ["rss<1GB", "cold<1s", "offline>1/s", "mean<1s,server>1/s"])
def test_conditions_that_prove_no_latency_are_refused(sla: str) -> None:
    with pytest.raises(ValueError, match=r"latency|percentile"):
        bench_settings(parse_sla(sla), 10.0, 0)


def term(met: bool | None, found: float | None = 40.0, unit: str = "ms") -> SlaTerm:
    return SlaTerm(term="p99<50ms", unit=unit, found=found, met=met, reason="why")


@pytest.mark.parametrize(
    ("met", "verdict"),
    [
        ([True, True], "passed"),
        ([True, None], "inconclusive"),
        ([None, False], "refused"),
        ([False, True], "refused"),
    ],
)
def test_the_worst_condition_is_the_verdict(met: list[Any], verdict: str) -> None:
    report = SimpleNamespace(sla=[term(each) for each in met])
    assert latency_part(report).verdict == verdict  # type: ignore[arg-type]


def test_the_reason_tells_each_condition() -> None:
    sla = [term(True), term(None, None), term(False, 2e9, "bytes")]
    part = latency_part(SimpleNamespace(sla=sla))  # type: ignore[arg-type]
    assert part.reason == (
        "p99<50ms met, found 40 ms (why); p99<50ms cannot be told (why); "
        "p99<50ms NOT met, found 2000 MB (why)"
    )
