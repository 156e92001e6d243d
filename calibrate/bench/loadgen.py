"""SingleStream driven by MLCommons' own LoadGen, where its wheel is installed: a second opinion on our rules.

What is measured is the same system by the same public calls; who asks, and who counts, is LoadGen. Its logs
go to a folder that is gone afterwards.
"""

from __future__ import annotations

import importlib
import json
import re
import tempfile
from pathlib import Path
from typing import Any

from promptray.calibrate.bench.report import LoadGen
from promptray.calibrate.bench.scenarios import System
from promptray.runtime.errors import PromptRayError

_DETAIL = "mlperf_log_detail.txt"
_NANO = 1e-6  # milliseconds


def run_loadgen(system: System, seconds: float, alone: float, seed: int, *, queries: int = 1) -> LoadGen:
    """Let LoadGen ask for one image after the other, for some seconds.

    Parameters
    ----------
    system : System
    seconds : float
        LoadGen runs for as long at least.
    alone : float
        Seconds of one image, of which LoadGen makes its plan.
    seed : int
        Of its draws.
    queries : int
        The fewest.

    Raises
    ------
    PromptRayError
        ``extra.missing`` without its wheel; what scoring raises.
    """
    library = _library()
    faults: list[Exception] = []

    def issue(samples: list[Any]) -> None:
        for sample in samples:
            if not faults:
                try:
                    system.one(sample.index)
                except Exception as fault:  # noqa: BLE001 - must not cross LoadGen's C++; raised below
                    faults.append(fault)
        library.QuerySamplesComplete([library.QuerySampleResponse(each.id, 0, 0) for each in samples])

    under_test = library.ConstructSUT(issue, lambda: None)
    images = library.ConstructQSL(system.images, system.images, lambda indices: None, lambda indices: None)
    try:
        with tempfile.TemporaryDirectory() as folder:
            logs = library.LogSettings()
            logs.log_output.outdir = folder
            logs.log_output.copy_summary_to_stdout = False
            settings = _settings(library, seconds, alone, seed, queries)
            library.StartTestWithLogSettings(under_test, images, settings, logs)
            detail = Path(folder, _DETAIL).read_text(encoding="utf-8", errors="replace")
    finally:
        library.DestroyQSL(images)
        library.DestroySUT(under_test)
    if faults:
        raise faults[0]
    return parse(detail)


def require_loadgen() -> None:
    """Refuse to go on without the wheel.

    Raises
    ------
    PromptRayError
        ``extra.missing``.
    """
    _library()


def parse(detail: str) -> LoadGen:
    """Read LoadGen's detailed log: lines of ``:::MLLOG {"key": ..., "value": ...}``."""
    entries = [json.loads(line.partition("MLLOG ")[2]) for line in detail.splitlines() if "MLLOG " in line]
    found = {entry["key"]: entry["value"] for entry in entries}
    said = str(found["early_stopping_result"])
    discarded = re.search(r"Would discard (\d+)", said)
    fewest = re.search(r"at least (\d+) queries", said)
    estimate = re.search(r"90(?:\.0)?th percentile estimate: (\d+)", said)
    return LoadGen(
        version=str(found["loadgen_version"]),
        queries=int(found["result_query_count"]),
        p50_ms=_NANO * float(found["result_50.00_percentile_latency_ns"]),
        p90_ms=_NANO * float(found["result_90.00_percentile_latency_ns"]),
        early_stopping_p90_ms=_NANO * float(estimate[1]) if estimate else None,
        discarded=int(discarded[1]) if discarded else None,
        fewest_queries=int(fewest[1]) if fewest else None,
    )


def _settings(library: Any, seconds: float, alone: float, seed: int, queries: int) -> Any:
    settings = library.TestSettings()
    settings.scenario = library.TestScenario.SingleStream
    settings.mode = library.TestMode.PerformanceOnly
    settings.min_duration_ms = max(1, round(1000 * seconds))
    settings.min_query_count = queries
    settings.single_stream_expected_latency_ns = max(1, round(1e9 * alone))
    settings.sample_index_rng_seed = seed
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
