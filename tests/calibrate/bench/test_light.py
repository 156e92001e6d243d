"""An edge box is measured by its edge install: nothing that exports or trains is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.fuzz.small_bundle import write_small

HEAVY = ("torch", "sklearn", "matplotlib", "scipy", "transformers", "timm", "onnx", "yaml", "pynvml")
COMMAND = f"""
import sys
for name in {HEAVY!r}:
    sys.modules[name] = None  # importing it is an error
from promptray.calibrate.bench import sweeps
sweeps.SIDES, sweeps.FILM, sweeps.PROMPTS, sweeps.MOST_QUERIES = (64,), (96, 80), (1, 3), 9
from promptray.cli import run
from promptray.calibrate.bench import run as bench_run
from tests.calibrate.bench.fakes import CountingClock
bench_run.MachineClock = CountingClock
sys.exit(run(sys.argv[1:]))
"""


def test_every_part_runs_on_the_edge_install(tmp_path: Path) -> None:
    write_small(tmp_path)
    bundle = tmp_path / "small.bundle"
    image = bundle / "golden" / "images" / "000.png"
    few = "--no-site --no-start --budget 3 --samples 1 --rate 5"
    options = f"--modality DX --scenario all --sweep all {few}".split()
    command = [sys.executable, "-c", COMMAND, "bench", bundle, image, *options, "-o", tmp_path / "report"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    report = tmp_path / "report" / "bench.json"
    assert report.exists(), done.stderr
    assert {each["name"] for each in json.loads(report.read_bytes())["sweeps"]} == {
        *("prompts", "threads", "streams", "size", "syntax")
    }
