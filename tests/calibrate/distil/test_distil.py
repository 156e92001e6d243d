from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import safetensors.torch
import torch

from promptray.calibrate.distil.checkpoint import FACTS, WEIGHTS, student_model
from promptray.calibrate.distil.run import CURVE, HISTORY, STATE, distil
from promptray.calibrate.distil.views import pixels
from promptray.calibrate.gates import LIMITS, GateData, ModelScores, run_gates
from promptray.calibrate.gates.report import GateReport
from promptray.export.families.base import LoadedModel
from promptray.export.onnx_graph import export_graph
from promptray.runtime.errors import PromptRayError
from tests.calibrate.distil import pupils

FAMILIES: dict[str, Callable[[], LoadedModel]] = {
    "carzero": pupils.carzero,
    "asg": lambda: pupils.asg("prompts", "tags"),
    "convnext": pupils.convnext,
    "open_clip": pupils.open_clip,
}


@pytest.fixture(scope="module")
def small() -> LoadedModel:
    return pupils.small()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / WEIGHTS)


def gated(teacher: LoadedModel, student: LoadedModel, count: int) -> GateReport:
    """Hold a student against its teacher on pictures that neither saw."""
    taken = torch.from_numpy(_pixels(teacher, count))
    head = teacher.heads[0].name
    chosen = list(pupils.findings(teacher)[head].values())
    ours, theirs = (model.head(head).reference(taken, chosen) for model in (student, teacher))
    data = GateData(
        tuple(pupils.findings(teacher)[head]),
        ModelScores("teacher", theirs.logits, maps=theirs.maps),
        ModelScores("student", ours.logits, maps=ours.maps),
    )
    return run_gates(data, LIMITS["student"], draws=100)


def _pixels(model: LoadedModel, count: int) -> Any:
    return pixels(list(pupils.pictures(count, model, seed=9)), model.preprocessing).numpy()


@pytest.mark.parametrize("name", FAMILIES)
def test_a_student_takes_the_towers_place_in_every_family(name: str, tmp_path: Path) -> None:
    teacher = FAMILIES[name]()
    facts = pupils.taught(teacher, tmp_path, epochs=2)
    student = student_model(teacher, tmp_path)
    assert student.image.outputs == teacher.image.outputs
    taken = torch.from_numpy(_pixels(teacher, 3))
    with torch.inference_mode():
        ours, theirs = student.image.module(taken), teacher.image.module(taken)
    assert [each.shape for each in ours] == [each.shape for each in theirs]
    assert not torch.equal(ours[0], theirs[0])
    assert facts.parameters < 400_000
    graph = export_graph(student.image, "image")
    if name == "convnext":  # nothing behind this tower has large weights: the teacher's own tower is gone
        assert len(graph) < 4 * facts.parameters + 100_000
    run = ort.InferenceSession(graph).run
    for found, expected in zip(run(None, {"pixels": taken.numpy()}), ours, strict=True):
        assert np.abs(found - expected.numpy()).max() <= 1e-4 * max(1.0, float(expected.abs().max()))
    # A head scores them as it scores the teacher's: its reference runs the sides.
    head = student.heads[0]
    chosen = list(pupils.findings(student)[head.name].values())
    first, second = (model.head(head.name).reference(taken, chosen) for model in (student, teacher))
    assert first.logits.shape == second.logits.shape
    assert not np.array_equal(first.logits, second.logits)


def test_the_loss_falls_and_the_best_epoch_is_kept(small: LoadedModel, tmp_path: Path) -> None:
    facts = pupils.taught(small, tmp_path, count=64, epochs=10)
    losses = [epoch.val_loss for epoch in facts.history]
    assert facts.best == int(np.argmin(losses)) > 0
    assert losses[facts.best] < 0.8 * losses[0]
    assert facts.history[0].val_terms["feature"] == pytest.approx(1, abs=0.4)  # a constant explains nothing
    history = json.loads((tmp_path / HISTORY).read_bytes())
    assert [epoch["val_loss"] for epoch in history] == losses
    assert "polyline" in (tmp_path / CURVE).read_text()


def test_a_student_stopped_after_one_step_is_refused_by_the_gate(small: LoadedModel, tmp_path: Path) -> None:
    facts = pupils.taught(small, tmp_path, epochs=5, steps=1)
    assert len(facts.history) == 2
    report = gated(small, student_model(small, tmp_path), 60)
    assert report.verdict == "refused"
    assert {gate.name for gate in report.gates if gate.verdict == "refused"} >= {"mean_delta", "spearman"}


def test_a_student_that_learned_passes_what_its_grid_lets_it_pass(small: LoadedModel, tmp_path: Path) -> None:
    # Four positions resampled to sixteen cannot make the teacher's maps.
    more = {"epochs": 30, "batch": 32, "augment": {"views": 2}, "validation": 0.1}
    pupils.taught(small, tmp_path, count=256, **more)
    report = gated(small, student_model(small, tmp_path), 200)
    verdicts = {gate.name: gate.verdict for gate in report.gates}
    assert verdicts["mean_delta"] == verdicts["max_delta"] == "passed"
    assert verdicts["map_correlation"] == report.verdict == "refused"


def test_training_that_was_stopped_goes_on_to_the_same_bits(small: LoadedModel, tmp_path: Path) -> None:
    def run(folder: Path, last: int | None) -> None:
        def progress(stage: str, message: str, fraction: float) -> None:
            if last is not None and message.startswith(f"epoch {last}:"):
                raise KeyboardInterrupt

        given = pupils.findings(small), pupils.settings(student="test_efficientnet")
        distil(small, *given, pupils.images(24, small), folder, progress)

    run(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", 2)
    assert (tmp_path / "killed" / STATE).exists()
    assert not (tmp_path / "killed" / FACTS).exists()
    torch.rand(7)  # whatever else drew numbers in between
    run(tmp_path / "killed", None)
    assert (tmp_path / "whole" / WEIGHTS).read_bytes() == (tmp_path / "killed" / WEIGHTS).read_bytes()
    assert (tmp_path / "whole" / FACTS).read_bytes() == (tmp_path / "killed" / FACTS).read_bytes()


def test_the_seed_decides(small: LoadedModel, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        pupils.taught(small, tmp_path / name, epochs=1, seed=seed)
    first, same, other = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_what_is_learned_of_one_teacher_is_refused_for_another(small: LoadedModel, tmp_path: Path) -> None:
    pupils.taught(small, tmp_path, epochs=1)
    with pytest.raises(PromptRayError) as refused:
        student_model(pupils.small(seed=2), tmp_path)
    assert refused.value.code == "distil.checkpoint"


@pytest.mark.parametrize("name", [WEIGHTS, FACTS])
def test_a_changed_student_is_refused(small: LoadedModel, tmp_path: Path, name: str) -> None:
    pupils.taught(small, tmp_path, epochs=1)
    content = bytearray((tmp_path / name).read_bytes())
    content[-2 if name == FACTS else -5] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PromptRayError) as refused:
        student_model(small, tmp_path)
    assert refused.value.code == "distil.checkpoint"


def test_a_state_of_other_settings_and_a_damaged_answer_are_refused(
    small: LoadedModel, tmp_path: Path
) -> None:
    pupils.taught(small, tmp_path, epochs=1)
    with pytest.raises(PromptRayError) as refused:
        pupils.taught(small, tmp_path, epochs=2)
    assert refused.value.code == "distil.state"
    (tmp_path / STATE).unlink()
    answer = next(tmp_path.glob("teacher-*/*.safetensors"))
    answer.write_bytes(b"\x00" * 40)
    with pytest.raises(PromptRayError) as refused:
        pupils.taught(small, tmp_path, epochs=2)
    assert refused.value.code == "distil.state"


def test_a_loss_that_is_no_number_ends_the_training(small: LoadedModel, tmp_path: Path) -> None:
    images = pupils.images(24, small)
    teacher = small
    settings = pupils.settings(losses={"logit": 1000, "feature": 1000}, rate=1.0, epochs=400, warm_up=0.0)
    chosen = pupils.findings(teacher)

    def progress(stage: str, message: str, fraction: float) -> None:
        if message.startswith("epoch 1:"):  # as a diverged step leaves it
            state = safetensors.torch.load_file(tmp_path / STATE)
            with safetensors.safe_open(tmp_path / STATE, framework="pt") as file:
                texts = file.metadata()
            key = next(each for each in state if each.startswith("network.") and each.endswith("weight"))
            state[key] = torch.full_like(state[key], float("nan"))
            safetensors.torch.save_file(state, tmp_path / STATE, texts)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distil(teacher, chosen, settings, images, tmp_path, progress)
    with pytest.raises(PromptRayError) as refused:
        distil(teacher, chosen, settings, images, tmp_path, pupils.quiet)
    assert refused.value.code == "distil.diverged"
    assert "distil.rate" in (refused.value.cure or "")
    assert not (tmp_path / FACTS).exists()
