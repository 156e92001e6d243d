"""An edge box accepts by its edge install: nothing that exports or trains is loaded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.calibrate.accept.variants import provenance, write_films, write_variant

HEAVY = ("torch", "sklearn", "matplotlib", "scipy", "transformers", "timm", "onnx", "yaml", "pynvml")
COMMAND = f"""
import sys
for name in {HEAVY!r}:
    sys.modules[name] = None  # importing it is an error
from promptray.calibrate.bench import run as bench_run
from promptray.cli import run
from tests.calibrate.bench.fakes import CountingClock
bench_run.MachineClock = CountingClock
sys.exit(run(sys.argv[1:]))
"""


def test_every_part_runs_on_the_edge_install(tmp_path: Path) -> None:
    bundle = write_variant(tmp_path, "small")
    recipe = {"name": "fp32.yaml", "sha256": "2" * 64}
    reference = write_variant(tmp_path, "other", provenance=provenance(recipe=recipe))
    films = write_films(tmp_path / "films", 4)
    options = "--modality DX --no-site --budget 1 --sla p50<60s --threads 1 --json".split()
    command = [sys.executable, "-c", COMMAND, "accept", bundle.path, "--images", films, *options]
    command += ["--reference", reference.path, "-o", tmp_path / "report"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    report = tmp_path / "report" / "accept.json"
    assert report.exists(), done.stderr
    assert [part["verdict"] for part in json.loads(report.read_bytes())["parts"]] == [
        *("passed", "passed", "passed", "inconclusive", "passed")
    ]
