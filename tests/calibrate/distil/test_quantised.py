"""Learning while quantised: what is simulated is what the quantised graph computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from promptray.calibrate.distil.checkpoint import FACTS, WEIGHTS, StudentSide, new_student, student_model
from promptray.calibrate.distil.quantised import Simulation
from promptray.calibrate.distil.quantised_products import int8_scale, rounded_input, rounded_weight
from promptray.calibrate.distil.run import distil
from promptray.calibrate.distil.teacher import teacher_of
from promptray.calibrate.distil.views import pixels
from promptray.calibrate.quantise import Int8, quantise
from promptray.calibrate.quantise.calibration_images import ImageFeeds
from promptray.calibrate.quantise.qdq import INT8, scale_of
from promptray.calibrate.quantise.session import open_session
from promptray.export.families.base import LoadedModel, Side
from promptray.export.onnx_graph import export_graph
from promptray.runtime.errors import PromptRayError
from tests.calibrate.distil import pupils

OWN = {"student": "teacher", "layers": "all"}


def student_side(model: LoadedModel, **changes: Any) -> Side:
    student = new_student(model, pupils.settings(**changes)).requires_grad_(False)
    return Side(StudentSide(student, model.image.module).eval(), model.image.inputs, model.image.outputs)


def ranged(model: LoadedModel, side: Side, scheme: Int8, pictures: Any) -> Simulation:
    simulation = Simulation(side, scheme)
    simulation.take_ranges(side.module, [pixels([each], model.preprocessing) for each in pictures])
    return simulation


def run(graph: bytes, given: Any) -> list[Any]:
    found: list[Any] = open_session(graph, "none").run(None, {"pixels": given})
    return found


def test_scales_are_those_of_the_graph() -> None:
    random = np.random.default_rng(0)
    sizes = np.concatenate([[0, 1e-9, 127, 127 * 2.0**-24, 127 * 1.0005], np.exp(random.normal(0, 3, 9999))])
    sizes = sizes.astype(np.float32)
    np.testing.assert_array_equal(int8_scale(torch.from_numpy(sizes)).numpy(), scale_of(sizes, INT8))


def test_the_gradient_passes_where_nothing_is_clipped() -> None:
    values = torch.tensor([-200.0, -128.4, -3.4, 0.5, 1.5, 127.4, 128.0], requires_grad=True)
    found = rounded_input(values, 1.0)
    assert found.tolist() == [-128, -128, -3, 0, 2, 127, 127]
    found.backward(torch.arange(1.0, 8))
    assert values.grad is not None
    assert values.grad.tolist() == [0, 2, 3, 4, 5, 6, 0]
    weight = torch.tensor([[254.0, 3.0], [0.0, 0.0]], requires_grad=True)
    rounded = rounded_weight(weight, 0)
    assert rounded.tolist() == [[254, 4], [0, 0]]
    rounded.sum().backward()
    assert weight.grad is not None
    assert bool((weight.grad == 1).all())


#: With slices of attention's weights and a tensor of four readers; BatchNorm; products of the teacher's.
STUDENTS: dict[str, tuple[Callable[[], LoadedModel], dict[str, Any], int]] = {
    "carzero, own": (pupils.carzero, OWN, 17),
    "convnext, resnet": (pupils.convnext, {"student": "test_resnet"}, 15),
    "asg, vit": (lambda: pupils.asg("prompts"), {"student": "test_vit"}, 30),
}


@pytest.mark.parametrize(("teacher", "changes", "count"), STUDENTS.values(), ids=STUDENTS)
def test_the_simulation_gives_what_the_quantised_graph_gives(
    teacher: Callable[[], LoadedModel], changes: dict[str, Any], count: int
) -> None:
    model = teacher()
    side = student_side(model, **changes)
    # Positions in float16 are not simulated: so small a change already moves values to another step.
    pictures, scheme = pupils.pictures(8, model), Int8(calibration="percentile", embeddings="float32")
    simulation = ranged(model, side, scheme, pictures)
    made = quantise(export_graph(side, "image"), scheme, ImageFeeds(pictures, model.preprocessing))
    assert len(simulation.names) == len(made.report.quantised) == count
    assert {name for name, why in made.report.kept.items() if "one plane" in why}.isdisjoint(simulation.names)

    taken = pixels(list(pupils.pictures(6, model, seed=3)), model.preprocessing)
    graph = run(made.content, taken.numpy())
    with torch.no_grad():
        plain = side.module(taken)
        with simulation.active():
            ours = side.module(taken)
        # What lies between two steps falls to either side by the last bit of a sum. So far the simulation
        # itself moves when biases and norms change by a millionth:
        for each in side.module.parameters():
            if each.ndim == 1:
                each.mul_(1 + 1e-6)
        with simulation.active():
            moved = side.module(taken)
    for found, exact, again, full in zip(ours, graph, moved, plain, strict=True):
        apart = np.abs(found.numpy() - exact).mean()
        assert apart <= 1.5 * float((again - found).abs().mean()) + 1e-6
        assert apart < 0.6 * np.abs(full.numpy() - exact).mean()


def test_one_layer_is_simulated_to_the_last_bits() -> None:
    model = pupils.small()
    side = student_side(model, **OWN)
    pictures = pupils.pictures(8, model)
    simulation = ranged(model, side, Int8(), pictures)
    made = quantise(export_graph(side, "image"), Int8(), ImageFeeds(pictures, model.preprocessing))
    taken = pixels(list(pictures), model.preprocessing)
    with torch.no_grad():
        plain = side.module(taken)
        with simulation.active():
            ours = side.module(taken)
    for found, exact, full in zip(ours, run(made.content, taken.numpy()), plain, strict=True):
        assert np.abs(found.numpy() - exact).max() < 1e-5
        assert np.abs(full.numpy() - exact).max() > 1e-3


def test_what_the_scheme_keeps_is_kept() -> None:
    model = pupils.carzero()
    side = student_side(model, **OWN)
    every = Simulation(side, Int8())
    group = next(name for name in every.names if ".blocks.1." in name).rpartition(".attn")[0]
    some = Simulation(side, Int8(keep=[group]))
    assert [name for name in every.names if not name.startswith(f"{group}.")] == some.names
    assert len(some.names) == len(every.names) - 4
    with pytest.raises(PromptRayError) as refused:
        Simulation(side, Int8(keep=["encoder.blocks.9"]))
    assert refused.value.code == "quantise.keep"


class _Unusual(nn.Module):
    """A product that torch is asked for in another way."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(64, 32))

    def forward(self, given: Tensor) -> tuple[Tensor]:
        return (torch.mm(given.mean(dim=(1, 2)), self.weight),)


def test_what_cannot_be_simulated_is_refused() -> None:
    model = pupils.small()
    facts = model.image.inputs[0]
    given = type(facts)(name="pixels", dtype="float32", dims=["batch", 3, 32, 64])
    side = Side(_Unusual().eval(), [given], [model.image.outputs[0]])
    with pytest.raises(PromptRayError, match="the graph has 1 products") as refused:
        Simulation(side, Int8())
    assert refused.value.code == "distil.simulate"
    with pytest.raises(PromptRayError, match="smooth") as refused:
        Simulation(student_side(model, **OWN), Int8(smooth=0.5))
    assert refused.value.code == "distil.simulate"


def taught(model: LoadedModel, folder: Path, scheme: Int8 | None = Int8(), **changes: Any) -> Any:  # noqa: B008 - immutable
    given = pupils.findings(model), pupils.settings(**changes), pupils.images(24, model)
    return distil(model, *given, folder, pupils.quiet, scheme=scheme)


def test_simulation_begins_where_it_is_told(tmp_path: Path) -> None:
    model = pupils.small()
    late = taught(model, tmp_path / "late", simulate={"from": 0.5}, epochs=2)
    early = taught(model, tmp_path / "early", simulate={"from": 0.0}, epochs=2)
    never = taught(model, tmp_path / "never", None, epochs=2)
    losses = [[epoch.train_loss for epoch in each.history] for each in (late, early, never)]
    assert losses[0][1] == losses[2][1] != losses[1][1]
    assert losses[0][2] != losses[2][2]
    # What watches is always quantised: it is of what will be deployed.
    assert late.history[0] == early.history[0] != never.history[0]
    assert (late.scheme, never.scheme) == (Int8(), None)
    assert any("int8-qdq" in note for note in student_model(model, tmp_path / "late").notes)


def test_training_that_was_stopped_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    model = pupils.small()

    def teach(folder: Path, last: int | None) -> None:
        def progress(stage: str, message: str, fraction: float) -> None:
            if last is not None and message.startswith(f"epoch {last}:"):
                raise KeyboardInterrupt

        given = pupils.findings(model), pupils.settings(simulate={"from": 0.4}, student="test_efficientnet")
        distil(model, *given, pupils.images(24, model), folder, progress, scheme=Int8())

    teach(tmp_path / "whole", None)
    with pytest.raises(KeyboardInterrupt):
        teach(tmp_path / "killed", 2)
    teach(tmp_path / "killed", None)
    for name in (WEIGHTS, FACTS):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()


def test_another_scheme_does_not_go_on(tmp_path: Path) -> None:
    model = pupils.small()
    taught(model, tmp_path, simulate={}, epochs=1)
    with pytest.raises(PromptRayError) as refused:
        taught(model, tmp_path, Int8(calibration="max"), simulate={}, epochs=1)
    assert refused.value.code == "distil.state"
    for scheme, simulate in ((None, {}), (Int8(), None)):
        with pytest.raises(PromptRayError) as refused:
            taught(model, tmp_path, scheme, simulate=simulate, epochs=1)
        assert refused.value.code == "distil.settings"


def test_the_quantised_graph_comes_nearer_to_its_teacher(tmp_path: Path) -> None:
    """Ranges of the entropy rule clip this tower; its weights learn to live with it."""
    model, scheme = pupils.convnext(), Int8(calibration="entropy")
    pictures = pupils.pictures(24, model)
    learn = {"epochs": 4, "rate": 1e-5, "simulate": {"from": 0.0, "images": 8}, "weight_decay": 0.0}
    facts = taught(model, tmp_path, scheme, **OWN, **learn)
    assert facts.best > 0
    assert facts.history[facts.best].val_loss < 0.6 * facts.history[0].val_loss
    taken = pixels(list(pupils.pictures(32, model, seed=9)), model.preprocessing)
    (head,) = teacher_of(model, pupils.findings(model)).heads.values()

    def logits(outputs: Sequence[Tensor]) -> Tensor:
        names = [each.name for each in model.image.outputs]
        found: Tensor = head(dict(zip(names, outputs, strict=True)))
        return found

    models, errors = (model, student_model(model, tmp_path)), []
    with torch.inference_mode():
        exact = logits(model.image.module(taken))
        for each in models:
            feeds = ImageFeeds(pictures, model.preprocessing)
            graph = quantise(export_graph(each.image, "image"), scheme, feeds).content
            found = logits([torch.from_numpy(values) for values in run(graph, taken.numpy())])
            errors.append(float((found - exact).abs().mean()))
    before, after = errors
    assert after < 0.6 * before
