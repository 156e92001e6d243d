"""A model of several heads: every head is gated, and one that fails is enough to refuse it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from filelock import FileLock
from onnx import numpy_helper

from promptray import BuildError, Scorer
from promptray.calibrate.pipeline import build
from promptray.calibrate.quantise import Quantised, quantise
from promptray.calibrate.quantise.scheme import WeightOnly
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.parity import read_parity
from promptray.runtime.machine_class import machine_class
from promptray.runtime.result import Result
from promptray.runtime.verify import verify
from tests import asg_tiny
from tests.calibrate.pipeline.students import write_steps

#: Without a flip among 299 patients, one in a hundred is settled; some are copies, or constant and refused.
IMAGES = 340
HEADS = {"prompts": len(asg_tiny.PROMPTS) + 1, "tags": len(asg_tiny.TAGS)}


@pytest.fixture(scope="session")
def place(shared_dir: Path, asg_both_bundle: Path) -> Path:
    """A folder with pictures ``gate`` and ``calibration``, and ``thresholds.json``. Read only."""
    folder = shared_dir / "several-heads"
    with FileLock(shared_dir / "several-heads.lock"):
        if not folder.exists():
            made = shared_dir / "several-heads.partial"
            write_steps(made / "gate", IMAGES, 1)
            write_steps(made / "calibration", 16, 0)
            found = quiet_thresholds(asg_both_bundle, made / "gate")
            (made / "thresholds.json").write_text(json.dumps(found))
            made.rename(folder)
    return folder


def quiet_thresholds(bundle: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Return thresholds that no image is near, by head and finding.

    Of 48 findings with random weights one or two have an image next to any fixed share of the images, and
    rounding flips it.
    """
    with Scorer.open(bundle, site=None) as scorer:
        modality = scorer.bundle.manifest.door.modalities[0]
        outcomes = scorer.score_many(sorted(folder.iterdir()), modality=modality)
        results = [each for each in outcomes if isinstance(each, Result)]
        names = [(each.head, each.key) for each in scorer.bundle.manifest.findings]
    found: dict[str, dict[str, float]] = {head: {} for head in HEADS}
    for head, key in names:
        levels = np.sort([result.scores[head, key].logit for result in results])[len(results) // 2 :]
        widest = int(np.diff(levels[: len(levels) // 2]).argmax())
        found[head][key] = float(levels[widest : widest + 2].mean())
    return found


def recipe(folder: Path, place: Path, schemes: dict[str, Any]) -> Path:
    images = {"images": str(place / "gate"), "source": "steps"}
    gate = {**images, "thresholds": json.loads((place / "thresholds.json").read_text())}
    quantise = {**schemes, "calibration": {**images, "images": str(place / "calibration")}}
    return asg_tiny.write_recipe(folder, **asg_tiny.both_recipe(quantise=quantise, gate=gate))


def test_both_heads_pass_and_are_in_the_bundle(place: Path, asg_both_bundle: Path, tmp_path: Path) -> None:
    path = recipe(tmp_path, place, {"image": {"scheme": "fp16"}})
    build(path, tmp_path / "x.bundle", cache=asg_both_bundle.parent / "cache")
    bundle = Bundle.open(tmp_path / "x.bundle")
    (gated,) = bundle.manifest.gated
    assert gated.consumer == f"onnxruntime-cpu@{machine_class()}"
    assert [each.head for each in gated.heads] == list(HEADS)
    assert [(each.head, each.kind, each.verdict) for each in read_parity(bundle).gates] == [
        (head, "fp16", "passed") for head in HEADS
    ]
    for each in gated.heads:
        report = json.loads(bundle.read(each.report))
        assert len(report["findings"]) == HEADS[each.head]
        stated = {found["key"]: found["flips"]["threshold"] for found in report["findings"]}
        assert stated == json.loads((place / "thresholds.json").read_text())[each.head]
    verify(bundle.path, site=None)
    with Scorer.open(bundle.path, site=None) as small, Scorer.open(asg_both_bundle, site=None) as original:
        film = sorted((place / "gate").iterdir())[0]
        found, expected = (each.score(film, modality="DX").scores for each in (small, original))
    for head, finding in (("prompts", "pneumothorax"), ("tags", "pneumothorax")):
        assert found[head, finding].logit == pytest.approx(expected[head, finding].logit, abs=0.05)


def tags_broken(content: bytes, scheme: Any, feeds: Any) -> Quantised:
    """Quantise, and lose the largest matrix of the graph with weights in int8, which is that of the tags."""
    made = quantise(content, scheme, feeds)
    if not isinstance(scheme, WeightOnly):
        return made
    model = onnx.load_from_string(made.content)
    largest = max(model.graph.initializer, key=lambda each: len(each.raw_data))
    values = numpy_helper.to_array(largest)
    largest.CopyFrom(numpy_helper.from_array(values * values.dtype.type(0), largest.name))
    return Quantised(bytes(model.SerializeToString()), made.report)


def test_one_head_that_fails_refuses_the_model(place: Path, asg_both_bundle: Path, tmp_path: Path) -> None:
    schemes = {"image": {"scheme": "fp16"}, "heads": {"tags": {"scheme": "weight-only"}}}
    path = recipe(tmp_path, place, schemes)
    with pytest.raises(BuildError, match="REFUSED") as refusal:
        build(path, tmp_path / "x.bundle", cache=asg_both_bundle.parent / "cache", change=tags_broken)
    assert refusal.value.code == "gate.failed"
    assert not (tmp_path / "x.bundle").exists()
    verdicts = {
        name: json.loads((tmp_path / "x.bundle.gate" / f"head-{name}.json").read_text())["verdict"]
        for name in HEADS
    }
    assert verdicts == {"prompts": "passed", "tags": "refused"}
    assert "head-tags" in str(refusal.value.found)
    assert "head-prompts" not in str(refusal.value.found)
