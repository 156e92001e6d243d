"""MLPerf's scenarios driven by MLCommons' own LoadGen, where its wheel is: a second opinion on our rules.

What is measured is the same system by the same public calls; who asks, and who counts, is LoadGen. Its logs
go to a folder that is gone afterwards.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from promptray.calibrate.bench.report import Bound, LoadGen, ScenarioName
from promptray.calibrate.bench.scenarios import System
from promptray.runtime.errors import PromptRayError

_DETAIL = "mlperf_log_detail.txt"
_NANO = 1e-6  # milliseconds
_NAMES = {
    "single-stream": "SingleStream",
    "multi-stream": "MultiStream",
    "server": "Server",
    "offline": "Offline",
}
Issue = Callable[[list[Any]], None]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What LoadGen is told.

    Attributes
    ----------
    scenario : {"single-stream", "multi-stream", "server", "offline"}
    seconds : float
        It runs for as long at least.
    rate : float
        Queries a second that it expects, which it makes its plan of; those that it asks, of the Server
        scenario; images a second, of the Offline scenario.
    seed : int
        Of its draws.
    samples : int
        Images of a query, of the MultiStream scenario.
    streams : int
        Images under way at once, of the Server scenario.
    bound : Bound, optional
        Of the Server scenario: LoadGen knows one.
    queries : int
        The fewest.
    """

    scenario: ScenarioName
    seconds: float
    rate: float
    seed: int = 0
    samples: int = 1
    streams: int = 1
    bound: Bound | None = None
    queries: int = 1


def run_loadgen(system: System, plan: Plan) -> LoadGen:
    """Let LoadGen ask for images by one scenario.

    Parameters
    ----------
    system : System
    plan : Plan

    Raises
    ------
    PromptRayError
        ``extra.missing`` without its wheel; what scoring raises.
    """
    library = _library()
    faults: list[BaseException] = []

    def answer(samples: list[Any]) -> None:
        try:
            if faults:
                pass  # LoadGen cannot be told to end: the rest is answered unasked
            elif len(samples) == 1:
                system.one(samples[0].index)
            else:
                system.several([each.index for each in samples])
        except BaseException as fault:  # noqa: BLE001 - must not cross LoadGen's C++; raised below
            faults.append(fault)
        library.QuerySamplesComplete([library.QuerySampleResponse(each.id, 0, 0) for each in samples])

    with contextlib.ExitStack() as stack:
        issue = stack.enter_context(_served(answer, plan.streams)) if plan.scenario == "server" else answer
        under_test = library.ConstructSUT(issue, lambda: None)
        stack.callback(library.DestroySUT, under_test)
        images = library.ConstructQSL(system.images, system.images, lambda _: None, lambda _: None)
        stack.callback(library.DestroyQSL, images)
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        logs = library.LogSettings()
        logs.log_output.outdir = folder
        logs.log_output.copy_summary_to_stdout = False
        library.StartTestWithLogSettings(under_test, images, _settings(library, plan), logs)
        detail = Path(folder, _DETAIL).read_text(encoding="utf-8", errors="replace")
    if faults:
        raise faults[0]
    return parse(detail, plan)


@contextlib.contextmanager
def _served(answer: Issue, streams: int) -> Iterator[Issue]:
    """Answer in threads of our own: who asks at the times of arrival is not kept waiting by an answer."""
    asked: SimpleQueue[list[Any] | None] = SimpleQueue()

    def work() -> None:
        while (samples := asked.get()) is not None:
            answer(samples)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(streams)]
    for thread in threads:
        thread.start()
    try:
        yield asked.put
    finally:
        for _ in threads:
            asked.put(None)
        for thread in threads:
            thread.join()


def require_loadgen() -> None:
    """Refuse to go on without the wheel.

    Raises
    ------
    PromptRayError
        ``extra.missing``.
    """
    _library()


def parse(detail: str, plan: Plan) -> LoadGen:
    """Read LoadGen's detailed log: lines of ``:::MLLOG {"key": ..., "value": ...}``."""
    entries = [json.loads(line.partition("MLLOG ")[2]) for line in detail.splitlines() if "MLLOG " in line]
    found = {entry["key"]: entry["value"] for entry in entries}
    said = str(found["early_stopping_result"])
    discarded = re.search(r"Would discard (\d+)", said)
    fewest = re.search(r"at least (\d+) queries", said)
    estimate = re.search(r"90(?:\.0)?th percentile estimate: (\d+)", said)
    queries, offline = int(found["result_query_count"]), plan.scenario == "offline"

    def percentile(which: str) -> float | None:
        return None if offline else _NANO * float(found[f"result_{which}_percentile_latency_ns"])

    return LoadGen(
        version=str(found["loadgen_version"]),
        scenario=plan.scenario,
        queries=queries,
        images=queries * int(found["generated_samples_per_query"]),
        rate=plan.rate if plan.scenario == "server" else None,
        images_per_second=float(found["result_samples_per_second"]) if offline else None,
        p50_ms=percentile("50.00"),
        p90_ms=percentile("90.00"),
        early_stopping_p90_ms=_NANO * float(estimate[1]) if estimate else None,
        discarded=int(discarded[1]) if discarded else None,
        fewest_queries=int(fewest[1]) if fewest else None,
        bound=plan.bound,
        met=bool(found["early_stopping_met"]) if plan.bound else None,
    )


def _settings(library: Any, plan: Plan) -> Any:
    settings = library.TestSettings()
    settings.scenario = getattr(library.TestScenario, _NAMES[plan.scenario])
    settings.mode = library.TestMode.PerformanceOnly
    settings.min_duration_ms = max(1, round(1000 * plan.seconds))
    settings.min_query_count = plan.queries
    settings.sample_index_rng_seed = settings.schedule_rng_seed = plan.seed
    expected = max(1, round(1e9 / plan.rate))  # nanoseconds of a query
    settings.single_stream_expected_latency_ns = settings.multi_stream_expected_latency_ns = expected
    settings.multi_stream_samples_per_query = plan.samples
    settings.multi_stream_target_latency_percentile = 0.9  # as SingleStream has it
    settings.server_target_qps = settings.offline_expected_qps = plan.rate
    if plan.bound:
        settings.server_target_latency_ns = round(plan.bound.ms / _NANO)
        settings.server_target_latency_percentile = plan.bound.percentile / 100
    return settings


def _library() -> Any:
    try:
        return importlib.import_module("mlperf_loadgen")
    except ImportError:
        raise PromptRayError(
            "extra.missing",
            "MLCommons' load generator is not installed",
            artefact="mlcommons-loadgen",
            cure="pip install mlcommons-loadgen (it is part of 'promptray[bench]'), or leave out --loadgen; "
            "the rules are the same without it",
        ) from None
