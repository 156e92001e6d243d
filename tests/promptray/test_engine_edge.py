"""Engines are built and gated where torch, onnx and the export libraries cannot be installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.engine_bundle import write_with_sources
from tests.test_import_rules import HEAVY

LIBRARIES = [name for name in HEAVY if not name.startswith("promptray.")]
COMMAND = """
import json, sys

heavy, arguments = json.loads(sys.argv[1]), sys.argv[2:]

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in heavy:
            raise ModuleNotFoundError(f"{name} is blocked: it is not in the edge install", name=name)

sys.meta_path.insert(0, Block())

from tests.fake_tensorrt import VERSION, make_plan, simulated_tensorrt
from promptray.calibrate.engines import installed
from promptray.export.tensorrt import Built, Flavour

def build(content, profiles, settings, flavour, **options):
    plan = make_plan(content, [each.shapes for each in profiles])
    return Built(plan, [], flavour.name, flavour.version, (), 1.0, None)

installed.build_engine = build
installed.load_flavour = lambda name: Flavour("tensorrt", "tensorrt", VERSION)

from promptray.cli import run

with simulated_tensorrt():
    code = run(arguments)
loaded = sorted(name for name in heavy if name in sys.modules)
assert not loaded, loaded
sys.exit(code)
"""


def test_the_edge_install_builds_gates_and_scores(tmp_path: Path) -> None:
    bundle = write_with_sources(tmp_path / "mini.bundle", "fp16").path
    site = tmp_path / "site"
    site.mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}

    def promptray(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [
            sys.executable,
            "-c",
            COMMAND,
            json.dumps(LIBRARIES),
            *map(str, arguments),
            "--site",
            str(site),
        ]
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)

    films = bundle / "golden" / "images"
    few = promptray("engine", bundle, "--backend", "tensorrt", "--images", films, "--json")
    assert few.returncode == 1, few.stderr
    assert json.loads(few.stdout)["error"]["code"] == "gate.inconclusive"  # the gates on images were held
    built = promptray("engine", bundle, "--backend", "tensorrt", "--json")
    assert built.returncode == 0, built.stderr
    scored = promptray(
        "score", bundle, films / "000.png", "--modality", "DX", "--backend", "tensorrt", "--json"
    )
    assert scored.returncode == 0, scored.stderr
    assert json.loads(scored.stdout)["backend"]["engines"]["key"] == json.loads(built.stdout)["key"]
