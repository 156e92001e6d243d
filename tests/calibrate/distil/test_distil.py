from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
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
from tests.exported import Exported

FAMILIES: dict[str, Callable[[], LoadedModel]] = {
    "carzero": pupils.carzero,
    "asg": lambda: pupils.asg("prompts", "tags"),
    "convnext": pupils.convnext,
    "open_clip": pupils.open_clip,
}


@pytest.fixture(scope="module")
def convnext() -> LoadedModel:
    return pupils.convnext()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / WEIGHTS)


def gated(teacher: LoadedModel, student: LoadedModel, count: int) -> GateReport:
    """Hold a student against its teacher on pictures that neither saw."""
    taken = torch.from_numpy(np.concatenate([_pixels(teacher, count)]))
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
    # The exported graphs say what torch says, through head and bank.
    for number, head in enumerate(student.heads):
        chosen = list(pupils.findings(student)[head.name].values())
        expected = head.reference(taken, chosen)
        exported = Exported(student, number)
        bank = exported.bank(chosen) if head.classes is None else pupils.bank(student, head, chosen)
        logits, maps = exported.score(bank, taken.numpy())
        assert np.abs(logits - expected.logits).max() <= head.score_tolerance
        assert (maps is None) == (expected.maps is None)
        if maps is not None and head.map is not None and expected.maps is not None:
            assert np.abs(maps - expected.maps).max() <= 10 * head.map.tolerance


def test_the_teachers_tower_is_not_in_the_students_graph(convnext: LoadedModel, tmp_path: Path) -> None:
    facts = pupils.taught(convnext, tmp_path, epochs=1)
    size = len(export_graph(student_model(convnext, tmp_path).image, "image"))
    assert size < 4 * facts.parameters + 100_000 < len(export_graph(convnext.image, "image"))


def test_the_loss_falls_and_the_best_epoch_is_kept(convnext: LoadedModel, tmp_path: Path) -> None:
    facts = pupils.taught(convnext, tmp_path, count=32, epochs=8, student="test_resnet")
    losses = [epoch.val_loss for epoch in facts.history]
    assert facts.best == int(np.argmin(losses)) > 0
    assert losses[facts.best] < 0.8 * losses[0]
    assert facts.history[0].val_terms["feature"] == pytest.approx(1, abs=0.2)  # a constant explains nothing
    history = json.loads((tmp_path / HISTORY).read_bytes())
    assert [epoch["val_loss"] for epoch in history] == losses
    assert "polyline" in (tmp_path / CURVE).read_text()


def test_a_student_stopped_after_one_step_is_refused_by_the_gate(
    convnext: LoadedModel, tmp_path: Path
) -> None:
    facts = pupils.taught(convnext, tmp_path, epochs=5, steps=1)
    assert len(facts.history) == 2
    report = gated(convnext, student_model(convnext, tmp_path), 60)
    assert report.verdict == "refused"
    assert {gate.name for gate in report.gates if gate.verdict == "refused"} >= {"mean_delta", "spearman"}


def test_training_that_was_stopped_goes_on_to_the_same_bits(convnext: LoadedModel, tmp_path: Path) -> None:
    def run(folder: Path, last: int | None) -> None:
        def progress(stage: str, message: str, fraction: float) -> None:
            if last is not None and message.startswith(f"epoch {last}:"):
                raise KeyboardInterrupt

        given = pupils.findings(convnext), pupils.settings(student="test_efficientnet")
        distil(convnext, *given, pupils.images(24, convnext), folder, progress)

    run(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "killed", 2)
    assert (tmp_path / "killed" / STATE).exists()
    assert not (tmp_path / "killed" / FACTS).exists()
    torch.rand(7)  # whatever else drew numbers in between
    run(tmp_path / "killed", None)
    assert (tmp_path / "whole" / WEIGHTS).read_bytes() == (tmp_path / "killed" / WEIGHTS).read_bytes()
    assert (tmp_path / "whole" / FACTS).read_bytes() == (tmp_path / "killed" / FACTS).read_bytes()


def test_the_seed_decides(convnext: LoadedModel, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        pupils.taught(convnext, tmp_path / name, epochs=1, seed=seed)
    first, same, other = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


def test_what_is_learned_of_one_teacher_is_refused_for_another(convnext: LoadedModel, tmp_path: Path) -> None:
    pupils.taught(convnext, tmp_path, epochs=1)
    with pytest.raises(PromptRayError) as refused:
        student_model(pupils.carzero(), tmp_path)
    assert refused.value.code == "distil.checkpoint"


@pytest.mark.parametrize("name", [WEIGHTS, FACTS])
def test_a_changed_student_is_refused(convnext: LoadedModel, tmp_path: Path, name: str) -> None:
    pupils.taught(convnext, tmp_path, epochs=1)
    content = bytearray((tmp_path / name).read_bytes())
    content[-2 if name == FACTS else -5] ^= 1
    (tmp_path / name).write_bytes(content)
    with pytest.raises(PromptRayError) as refused:
        student_model(convnext, tmp_path)
    assert refused.value.code == "distil.checkpoint"


def test_a_state_of_other_settings_and_a_damaged_answer_are_refused(
    convnext: LoadedModel, tmp_path: Path
) -> None:
    pupils.taught(convnext, tmp_path, epochs=1)
    with pytest.raises(PromptRayError) as refused:
        pupils.taught(convnext, tmp_path, epochs=2)
    assert refused.value.code == "distil.state"
    (tmp_path / STATE).unlink()
    answer = next(tmp_path.glob("teacher-*/*.safetensors"))
    answer.write_bytes(b"\x00" * 40)
    with pytest.raises(PromptRayError) as refused:
        pupils.taught(convnext, tmp_path, epochs=2)
    assert refused.value.code == "distil.state"


def test_a_loss_that_is_no_number_ends_the_training(convnext: LoadedModel, tmp_path: Path) -> None:
    images = pupils.images(24, convnext)
    teacher = pupils.convnext()
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
