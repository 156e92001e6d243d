"""`promptray accept` of a bundle that a build quantised and gated, against the fp32 bundle of the model."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from promptray.calibrate.accept.reference import kept_limits
from promptray.calibrate.bench import run as bench_run
from promptray.cli import run
from promptray.runtime.bundle import Bundle
from promptray.runtime.gate_limits import LIMITS
from promptray.runtime.scorer import Scorer
from tests import bundle_factory as factory
from tests.calibrate.bench.fakes import CountingClock


def test_it_is_held_by_its_own_gates_on_the_images_that_it_passed_on(
    gated_bundle: Path, reference_bundle: Path, pieces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_run, "MachineClock", CountingClock)
    options = ["--modality", "DX", "--no-site", "--budget", "1", "--sla", "p50<600s", "--threads", "1"]
    films = ["--images", str(pieces / "gate"), "--reference", str(reference_bundle)]
    code = run(["accept", str(gated_bundle), *films, *options, "-o", str(tmp_path / "report")])
    report = json.loads((tmp_path / "report" / "accept.json").read_bytes())
    assert [part["verdict"] for part in report["parts"]] == ["passed"] * 5, report["parts"]
    assert code == 0
    (head,) = report["agreement"]["heads"]
    assert head["kind"] == "int8"
    assert report["backend"]["gated_as"].startswith("onnxruntime-cpu@")
    parity = json.loads((gated_bundle / "parity.json").read_bytes())
    kept = json.loads((gated_bundle / parity["gates"][0]["report"]).read_bytes())
    bounds = {gate["name"]: gate["bound"] for gate in kept["gates"]}
    held = {gate["name"]: gate for gate in head["gates"]["gates"]}
    assert {name: gate["bound"] for name, gate in held.items()} == {
        name: bound for name, bound in bounds.items() if name in held
    }
    measured = {gate["name"]: gate["value"] for gate in kept["gates"]}
    assert held["spearman"]["value"] == pytest.approx(measured["spearman"], abs=1e-4)
    assert held["max_delta"]["value"] > 0


def test_a_tighter_bound_of_the_build_is_kept(gated_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.bundle"
    shutil.copytree(gated_bundle, copy)
    name = json.loads((copy / "parity.json").read_bytes())["gates"][0]["report"]
    report = json.loads((copy / name).read_bytes())
    tightened = next(gate for gate in report["gates"] if gate["name"] == "max_delta")
    tightened["bound"] = LIMITS["int8"].max_delta - 0.01
    factory.relist(copy, name, json.dumps(report).encode())
    bundle = Bundle.open(copy)
    with Scorer.open(copy, site=None) as scorer:
        kind, limits = kept_limits(bundle, bundle, scorer.backend, bundle.manifest.heads[0].name)
    assert kind == "int8"
    assert limits == replace(LIMITS["int8"], max_delta=tightened["bound"])
