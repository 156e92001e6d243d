"""A text side with fewer blocks: it learns, goes on after a kill, and is refused where it must be."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from promptray.calibrate.distil.run import CURVE, HISTORY, STATE
from promptray.calibrate.distil.text_run import FACTS, WEIGHTS, TextFacts, distil_text, text_side
from promptray.calibrate.distil.text_settings import TextDistil, TextLosses
from promptray.calibrate.distil.text_student import call, text_student
from promptray.calibrate.distil.text_wordings import Wordings
from promptray.export.families.base import LoadedModel
from promptray.runtime.errors import BuildError, PromptRayError
from promptray.runtime.text import TextEncoder
from tests.calibrate.distil import pupils

FAMILIES: dict[str, Callable[[], LoadedModel]] = {
    "carzero": pupils.carzero,
    "asg": lambda: pupils.asg("prompts", "tags"),
    "open_clip": pupils.open_clip,
}
TERMS = (
    "pneumonia",
    "effusion",
    "edema",
    "a mass",
    "a fracture",
    "clear lungs",
    "a large heart",
    "scoliosis",
)


def wordings(model: LoadedModel) -> Wordings:
    assert model.text is not None
    encoder = TextEncoder(model.text.rule, model.text.tokenizer)
    said = [
        form.format(term)
        for form in ("There is {}.", "The chest shows {}.", "No sign of {}.")
        for term in TERMS
    ]
    encoded = [encoder.encode(text) for text in said]
    watching = set(range(0, len(encoded), 5))
    learned = (each for number, each in enumerate(encoded) if number not in watching)
    return Wordings(tuple(learned), tuple(encoded[number] for number in watching))


def seen(model: LoadedModel, images: int = 3) -> torch.Tensor:
    facts = model.preprocessing
    generator = torch.Generator().manual_seed(5)
    return torch.randn(images, facts.channels, facts.height, facts.width, generator=generator)


def settings(**changes: Any) -> TextDistil:
    return TextDistil(**{"layers": 2, "epochs": 3, "batch": 6, "rate": 1e-3, **changes})


def taught(model: LoadedModel, folder: Path, progress: Any = pupils.quiet, **changes: Any) -> TextFacts:
    return distil_text(model, wordings(model), seen(model), settings(**changes), folder, progress)


def example(model: LoadedModel) -> Any:
    return wordings(model).val[0].arrays


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_with_free_prompts_learns_in_fewer_blocks(name: str, tmp_path: Path) -> None:
    teacher = FAMILIES[name]()
    facts = taught(teacher, tmp_path)
    assert facts.kept == [0, facts.of - 1]
    assert facts.history[facts.best].val_loss < 0.8 * facts.history[0].val_loss
    assert set(facts.history[0].val_terms) == {"feature", "logit"}
    assert teacher.text is not None
    side = text_side(teacher, tmp_path)
    assert (side.inputs, side.outputs) == (teacher.text.side.inputs, teacher.text.side.outputs)
    with torch.inference_mode():
        ours, theirs = call(side, example(teacher)), call(teacher.text.side, example(teacher))
    assert {key: each.shape for key, each in ours.items()} == {
        key: each.shape for key, each in theirs.items()
    }
    assert any(not torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("name", FAMILIES)
def test_only_the_kept_blocks_are_trained(name: str, tmp_path: Path) -> None:
    teacher = FAMILIES[name]()
    assert teacher.text is not None
    before = {key: each.clone() for key, each in teacher.text.side.module.state_dict().items()}
    taught(teacher, tmp_path, steps=2, layers=1)
    after = teacher.text.side.module.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)
    begun = text_student(teacher, 1, example(teacher))
    learned = text_side(teacher, tmp_path).module.state_dict()
    changed = {key for key, each in learned.items() if not torch.equal(each, before[key])}
    (blocks,) = [key for key, each in begun.side.module.named_modules() if each is begun.blocks]
    assert changed
    assert all(key.startswith(f"{blocks}.0.") for key in changed)


class _Killed(Exception):
    pass


def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = pupils.open_clip()
    taught(teacher, tmp_path / "whole")

    def kill(stage: str, message: str, fraction: float) -> None:
        if message.startswith("epoch 2"):
            raise _Killed

    with pytest.raises(_Killed):
        taught(teacher, tmp_path / "killed", kill)
    assert (tmp_path / "killed" / STATE).exists()
    monkeypatch.setattr("promptray.calibrate.distil.text_targets.TextTargets._answers", _never)
    taught(teacher, tmp_path / "killed")
    for name in (WEIGHTS, FACTS, HISTORY, CURVE):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def _never(*_: Any) -> None:
    raise AssertionError("the teacher's answers were kept")


def test_a_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    teacher = pupils.open_clip()
    taught(teacher, tmp_path, epochs=1)
    with pytest.raises(PromptRayError, match="another run") as refusal:
        taught(teacher, tmp_path, epochs=1, rate=2e-3)
    assert refusal.value.code == "distil.state"


@pytest.mark.parametrize("damage", [FACTS, WEIGHTS, "model"])
def test_a_damaged_or_foreign_student_is_refused(damage: str, tmp_path: Path) -> None:
    teacher = pupils.open_clip()
    taught(teacher, tmp_path, steps=1)
    if damage == "model":
        assert teacher.text is not None
        with torch.no_grad():
            next(teacher.text.side.module.parameters()).add_(1e-3)
    else:
        content = (tmp_path / damage).read_bytes()
        (tmp_path / damage).write_bytes(content[:-20] + b"1" * 20)
    with pytest.raises(BuildError) as refusal:
        text_side(teacher, tmp_path)
    assert refusal.value.code == "distil.checkpoint"


def test_what_cannot_be_smaller_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="scores no wordings"):
        distil_text(
            pupils.convnext(),
            wordings(pupils.open_clip()),
            seen(pupils.convnext()),
            settings(),
            tmp_path,
            pupils.quiet,
        )
    teacher = pupils.carzero()
    for layers in (5, 6):
        with pytest.raises(BuildError, match="5 blocks"):
            taught(teacher, tmp_path, layers=layers)
    unit = dataclasses.replace(teacher, heads=[dataclasses.replace(teacher.heads[0], set="fixed")])
    with pytest.raises(BuildError, match="one unit") as refusal:
        taught(unit, tmp_path)
    assert refusal.value.code == "distil.student"


def test_every_loss_may_be_left_out_but_not_all(tmp_path: Path) -> None:
    facts = taught(pupils.open_clip(), tmp_path, steps=1, losses=TextLosses(feature=0.0))
    assert set(facts.history[-1].val_terms) == {"logit"}
    with pytest.raises(ValueError, match="nothing would be learned"):
        settings(losses=TextLosses(feature=0.0, logit=0.0))
