"""A recipe with `distil.simulate`: the student learns under the scheme that its image graph will have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from promptray import BuildError
from promptray.calibrate.distil import run as run_module
from promptray.calibrate.distil.settings import Simulate
from promptray.calibrate.pipeline import build
from promptray.calibrate.pipeline.recipe import BuildRecipe, check_sections, kind_of
from promptray.calibrate.quantise import Int8
from promptray.export.recipe import read_recipe_as
from promptray.runtime.bundle.parity import read_parity
from tests import convnext_tiny
from tests.calibrate.pipeline.conftest import Recipe
from tests.calibrate.pipeline.students import DISTIL, GATE

KEPT = "student.tower.encoder.model.blocks.0"
QUANTISE: dict[str, Any] = {
    "image": {"scheme": "int8-qdq", "keep": [KEPT]},
    "calibration": {"images": "learn", "source": "steps, even"},
}
OWN: dict[str, Any] = {
    **DISTIL,
    "student": "teacher",
    "layers": "all",
    "rate": 1e-5,
    "simulate": {"from": 0.0, "images": 8},
}


def test_a_student_that_learned_while_quantised_passes_the_limits_of_int8(
    recipe: Recipe, cache: Path, pieces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught: dict[str, Any] = {}
    distil = run_module.distil

    def watched(*given: Any, **named: Any) -> Any:
        taught.update(named, facts=distil(*given, **named))
        return taught["facts"]

    monkeypatch.setattr(run_module, "distil", watched)
    images = {"images": str(pieces / "calibration"), "source": "pieces of films, seed 1"}
    sections: dict[str, Any] = {
        "distil": {**OWN, **images},
        "quantise": {**QUANTISE, "calibration": images},
    }
    made = build(recipe(**sections), tmp_path / "x.bundle", cache=cache)
    assert taught["scheme"] == taught["facts"].scheme == Int8(keep=[KEPT])
    (image,) = [each for each in made.manifest.graphs if each.role == "image"]
    assert image.precision == "int8-qdq"
    parity = read_parity(made)
    assert {each.kind for each in parity.gates} == {"int8"}
    assert any("simulated quantisation int8-qdq" in note for note in parity.notes)

    # Another scheme is another student; what it names wrongly is refused before the training.
    taught.clear()
    sections["quantise"]["image"] = {"scheme": "int8-qdq", "keep": ["student.tower.encoder.model.blocks.9"]}
    with pytest.raises(BuildError) as refusal:
        build(recipe(**sections), tmp_path / "y.bundle", cache=cache)
    assert refusal.value.code == "quantise.keep"
    assert not taught


UNFIT: dict[str, Any] = {
    "no quantisation": None,
    "8 bits between convolutions": {**QUANTISE, "image": {"scheme": "int8-convolutions"}},
    "weights alone": {"image": {"scheme": "weight-only"}},
    "layers chosen after training": {**QUANTISE, "search": "calibration"},
    "factors moved after training": {**QUANTISE, "image": {"scheme": "int8-qdq", "smooth": 0.5}},
}


@pytest.mark.parametrize("quantise", UNFIT.values(), ids=UNFIT)
def test_what_cannot_be_simulated_is_refused_before_the_work(tmp_path: Path, quantise: Any) -> None:
    changes = {"distil": OWN, "gate": GATE, **({"quantise": quantise} if quantise else {})}
    path = convnext_tiny.write_recipe(tmp_path, **changes)
    with pytest.raises(BuildError) as refusal:
        check_sections(read_recipe_as(path, BuildRecipe), path.name, ["classes"], text=False)
    assert refusal.value.code == "recipe.invalid"
    assert "key distil.simulate" in str(refusal.value.artefact)


@pytest.mark.parametrize(
    ("distil", "kind"),
    [(OWN, "int8"), ({**OWN, "layers": 4}, "student"), ({**DISTIL, "simulate": {}}, "student")],
)
def test_a_whole_tower_that_was_trained_on_is_held_as_a_quantised_one(
    tmp_path: Path, distil: dict[str, Any], kind: str
) -> None:
    path = convnext_tiny.write_recipe(tmp_path, distil=distil, quantise=QUANTISE, gate=GATE)
    recipe = read_recipe_as(path, BuildRecipe)
    check_sections(recipe, path.name, ["classes"], text=False)
    assert kind_of(recipe, path.name) == kind
    if kind == "int8":
        looser = convnext_tiny.write_recipe(
            tmp_path / "looser", distil=distil, quantise=QUANTISE, gate={**GATE, "kind": "student"}
        )
        with pytest.raises(BuildError) as refusal:
            kind_of(read_recipe_as(looser, BuildRecipe), looser.name)
        assert refusal.value.code == "recipe.invalid"


def test_the_recipe_in_the_documentation_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "distillation.md").read_text(encoding="utf-8")
    (example,) = (each for each in page.split("```")[1::2] if "simulate: {" in each)
    sections = yaml.safe_load(example.removeprefix("yaml\n"))
    path = convnext_tiny.write_recipe(tmp_path, **sections)
    recipe = read_recipe_as(path, BuildRecipe)
    check_sections(recipe, path.name, ["classes"], text=False)
    assert recipe.distil is not None
    assert recipe.distil.simulate == Simulate(start=0.0)
    assert recipe.simulated == Int8()
