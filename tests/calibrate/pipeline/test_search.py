"""A recipe's `search`: layers are chosen by images of their own, and the gate has the last word."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
from filelock import FileLock

from promptray import BuildError
from promptray.calibrate.gates import Limits
from promptray.calibrate.pipeline import build
from promptray.calibrate.pipeline import search as search_module
from promptray.calibrate.pipeline.gate import Gates
from promptray.calibrate.pipeline.mixes import Mixes
from promptray.calibrate.pipeline.recipe import BuildRecipe, check_sections
from promptray.export.recipe import read_recipe_as
from promptray.runtime.bundle.parity import read_parity
from promptray.runtime.verify import verify
from tests import asg_tiny
from tests.calibrate.pipeline import squeezed
from tests.calibrate.pipeline.conftest import SCHEMES, Recipe, write_pieces
from tests.calibrate.pipeline.squeezed import GATE, QUANTISE, SEARCH, write_recipe

SCHEMA = Path(__file__).parents[3] / "docs" / "search.schema.json"


@pytest.fixture(scope="session")
def exported(shared_dir: Path) -> Path:
    """A folder with pictures, and a cache in which the model is exported. Read only."""
    folder = shared_dir / "squeezed"
    shared_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(shared_dir / "squeezed.lock"):
        if not folder.exists():
            made = shared_dir / "squeezed.partial"
            squeezed.write_pictures(made)
            build(write_recipe(made, quantise=None, gate=None), made / "plain.bundle", cache=made / "cache")
            made.rename(folder)
    return folder


@pytest.fixture
def place(exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to write in; its searches ask for nothing unless a test does."""
    strict(monkeypatch)
    return Path(shutil.copytree(exported, tmp_path / "place"))


def searching(place: Path, **changes: Any) -> Path:
    return write_recipe(place, quantise={**QUANTISE, "search": SEARCH}, **changes)


def strict(monkeypatch: pytest.MonkeyPatch, **bounds: float) -> None:
    """Search with these bounds only; the gate keeps its own."""

    def gates(original: Any, asked: Any, stages: Any, progress: Any) -> Gates:
        return Gates(original, replace(asked, limits=Limits(**bounds)), stages, progress)

    monkeypatch.setattr(search_module, "Gates", gates)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Every trial that is really made, from now on."""
    made: list[list[str]] = []
    ask: Callable[..., None] = search_module._Trials._ask

    def counting(self: Any, kept: list[str], out: Path) -> None:
        made.append(kept)
        ask(self, kept, out)

    monkeypatch.setattr(search_module._Trials, "_ask", counting)
    return made


def report_of(output: Path) -> Any:
    found = json.loads((output.with_name(f"{output.name}.search") / "search.json").read_text())
    jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text())).validate(found)
    return found


def test_where_no_mix_will_do_it_is_said_with_the_nearest(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict(monkeypatch, mean_delta=0.0)
    output = place / "none.bundle"
    with pytest.raises(BuildError, match="no mix") as refusal:
        build(searching(place), output, cache=place / "cache")
    assert refusal.value.code == "quantise.search"
    assert "mean_delta" in str(refusal.value.found)
    assert "none.bundle.search" in str(refusal.value.cure)
    assert not output.exists()
    report = report_of(output)
    groups = [each["group"] for each in report["sensitivity"]["groups"]]
    assert len(report["trials"]) == len(groups) == len(set(groups))
    assert (report["best"], report["keep"]) == (None, None)
    assert report["images"]["images"] == squeezed.SEARCHED
    assert report["sensitivity"]["images"] == squeezed.CALIBRATED
    page = (place / "none.bundle.search" / "search.html").read_text(encoding="utf-8")
    assert "No mix is inside all bounds." in page
    assert all(f">{group}<" in page for group in groups)


def test_the_mix_with_the_most_quantised_that_is_inside_goes_on_to_the_gate(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = place / "cache"
    strict(monkeypatch, mean_delta=0.0)
    with pytest.raises(BuildError, match="no mix"):
        build(searching(place), place / "none.bundle", cache=cache)
    values = [
        next(value["value"] for value in trial["verdict"] if value["gate"] == "mean_delta")
        for trial in report_of(place / "none.bundle")["trials"]
    ]
    bound = (min(values) + max(values)) / 2
    assert values[0] > bound  # so that something has to stay high
    strict(monkeypatch, mean_delta=bound)
    found: list[search_module.Searched] = []

    def kept(*arguments: Any) -> search_module.Searched:
        found.append(search_module.searched(*arguments))
        return found[-1]

    monkeypatch.setattr(sys.modules[build.__module__], "searched", kept)
    refused_by_gate(searching(place), place / "some.bundle", cache)
    report = report_of(place / "some.bundle")
    best, ((title, names),) = report["best"], report["keep"].items()
    assert title == "image"
    assert {f"image: {name}" for name in names} == set(best["kept"])
    assert 0 < len(names) < len(report["sensitivity"]["groups"])
    assert next(each["value"] for each in best["verdict"] if each["gate"] == "mean_delta") <= bound
    assert best["share"] == max(trial["share"] for trial in report["trials"] if trial["accepted"])
    (note,) = [each.note for each in found]
    assert f"on {squeezed.SEARCHED} images" in note
    assert all(name in note for name in names)

    # What it says to write as `keep` is the same graph, and nothing is searched any more.
    made = set(cache.glob("quantise-*"))
    path = write_recipe(place, quantise={**QUANTISE, "image": {**QUANTISE["image"], "keep": names}})
    refused_by_gate(path, place / "kept.bundle", cache)
    assert set(cache.glob("quantise-*")) == made
    assert len(found) == 1


def refused_by_gate(recipe: Path, output: Path, cache: Path) -> None:
    """Build as far as the gate, which thirty images cannot pass."""
    with pytest.raises(BuildError) as refusal:
        build(recipe, output, cache=cache)
    assert refusal.value.code in ("gate.failed", "gate.inconclusive")
    assert (output.with_name(f"{output.name}.gate") / "head-classes.json").exists()


def test_a_mix_that_passes_its_gate_is_written_with_how_it_was_found(
    cache: Path, recipe: Recipe, pieces: Path, tmp_path: Path
) -> None:
    calibration = {"images": str(pieces / "calibration"), "source": "pieces of films, seed 1"}
    search = {"images": str(write_pieces(tmp_path / "search", 200, 3)), "source": "pieces of films, seed 3"}
    quantise = {**SCHEMES, "calibration": calibration, "search": search}
    made = build(recipe(quantise=quantise), tmp_path / "x.bundle", cache=cache)
    verify(made.path)
    notes = read_parity(made).notes
    assert any("A search chose the layers" in note and "had no part in it" in note for note in notes)
    assert any("image int8-qdq" in note and "of the time of fp32" in note for note in notes)


def test_a_search_that_was_stopped_goes_on_and_a_second_makes_no_trial(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict(monkeypatch, mean_delta=0.0)

    def stop(stage: str, message: str, fraction: float) -> None:
        if stage == "search" and message.startswith("trial 4 "):
            raise KeyboardInterrupt

    made = counted(monkeypatch)
    path, output = searching(place), place / "x.bundle"
    with pytest.raises(KeyboardInterrupt):
        build(path, output, cache=place / "cache", progress=stop)
    assert len(made) == 3
    monkeypatch.setattr("promptray.calibrate.pipeline.effects._score", None)  # each of them is finished
    with pytest.raises(BuildError, match="no mix"):
        build(path, output, cache=place / "cache")
    trials = report_of(output)["trials"]
    assert [sorted(each) for each in made] == [sorted(trial["kept"]) for trial in trials]
    with pytest.raises(BuildError, match="no mix"):
        build(path, output, cache=place / "cache")
    assert len(made) == len(trials)


def test_the_calibration_images_may_choose(place: Path) -> None:
    quantise = {**QUANTISE, "search": "calibration", "head": {"scheme": "fp16"}}
    path = write_recipe(place, quantise=quantise)
    refused_by_gate(path, place / "x.bundle", place / "cache")
    report = report_of(place / "x.bundle")
    assert report["images"]["source"] == "blocks, seed 1"
    assert [trial["kept"] for trial in report["trials"]] == [[]]  # everything: it was asked for nothing
    assert report["keep"] == {"image": []}
    assert report["beside"] == {"head classes": "fp16"}  # not named by keep, and not fp32 either
    page = (place / "x.bundle.search" / "search.html").read_text(encoding="utf-8")
    assert "Quantised as the recipe says, no layers chosen: head classes: fp16" in page


def test_images_that_choose_are_none_of_the_gate(place: Path) -> None:
    path = write_recipe(place, quantise={**QUANTISE, "search": {**GATE, "source": "the same"}})
    with pytest.raises(BuildError, match="searched") as refusal:
        build(path, place / "x.bundle", cache=place / "cache")
    assert refusal.value.code == "gate.images"


def test_a_file_in_the_place_of_the_report_is_said(place: Path) -> None:
    (place / "x.bundle.search").write_text("mine")
    with pytest.raises(BuildError) as refusal:
        build(searching(place), place / "x.bundle", cache=place / "cache")
    assert refusal.value.code == "output.exists"
    assert (place / "x.bundle.search").read_text() == "mine"


DYNAMIC = {"scheme": "int8-dynamic"}
WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "nothing to choose from": (
        {"image": {"scheme": "fp16"}, "calibration": dict(GATE), "search": SEARCH},
        "quantise.search", "choose",
    ),
    "a search for text": ({"text": DYNAMIC, "search": SEARCH}, "quantise.search", "choose"),
    "ranges of the call, image": ({"image": DYNAMIC}, "quantise.image", "whole call"),
    "ranges of the call, heads": ({"head": DYNAMIC}, "quantise.head", "whole call"),
    "ranges of the call, one head": ({"heads": {"tags": DYNAMIC}}, "quantise.heads.tags", "whole call"),
}  # fmt: skip


@pytest.mark.parametrize(("quantise", "key", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_section_is_refused(tmp_path: Path, quantise: dict[str, Any], key: str, words: str) -> None:
    path = write_recipe(tmp_path, quantise=quantise)
    with pytest.raises(BuildError, match=words) as refusal:
        check_sections(read_recipe_as(path, BuildRecipe), path.name, ["tags"], text=True)
    assert refusal.value.code == "recipe.invalid"
    assert refusal.value.artefact == f"recipe.yaml, key {key}"


def test_a_group_that_is_not_there_is_refused_with_the_nearest_names(place: Path) -> None:
    image = {**QUANTISE["image"], "keep": ["feature.3"]}
    with pytest.raises(BuildError) as refusal:
        build(
            write_recipe(place, quantise={**QUANTISE, "image": image}),
            place / "x.bundle",
            cache=place / "cache",
        )
    assert refusal.value.code == "quantise.keep"
    assert refusal.value.artefact == "feature.3"
    assert str(refusal.value.expected).startswith("a group of layers, or a layer: features.3")


def test_groups_of_image_and_heads_are_chosen_together(asg_both_bundle: Path, tmp_path: Path) -> None:
    squeezed.write_pictures(tmp_path)
    quantise = {**QUANTISE, "heads": {"tags": dict(QUANTISE["image"])}, "text": DYNAMIC}
    path = asg_tiny.write_recipe(tmp_path, **asg_tiny.both_recipe(quantise=quantise, gate=GATE))
    recipe = read_recipe_as(path, BuildRecipe)
    cache = asg_both_bundle.parent / "cache"
    mixes = mixes_of(recipe, path, cache, tmp_path)
    titles = {group.partition(": ")[0] for group in mixes.groups}
    assert titles == {"image", "head tags"}
    assert mixes.beside == {"text": "int8-dynamic"}
    image = [group for group in mixes.groups if group.startswith("image")]
    with mixes.made(image[1:]) as changed:
        precisions = {graph.title: graph.precision for graph in changed.draft.manifest.graphs}
        assert precisions == {
            "image": "int8-qdq",
            "head prompts": "fp32",
            "head tags": "fp32",
            "text": "int8-dynamic",
        }
        assert image[0].partition(": ")[2] not in {
            layer.group for layer in changed.reports["image"].quantised
        }
    assert mixes.kept(image[1:]) == {"image": [image[0].partition(": ")[2]]}

    # A bank in less is for every machine where the image graph is fp32, so that must be changed with it.
    assert recipe.quantise is not None
    less = msgspec.structs.replace(recipe, quantise=msgspec.structs.replace(recipe.quantise, bank="float16"))
    mixes = mixes_of(less, path, cache, tmp_path)
    assert list(mixes.schemes) == ["image"]
    assert mixes.beside == {"head tags": "int8-qdq", "text": "int8-dynamic"}
    chosen = mixes.recipe(image[1:]).quantise
    assert chosen is not None
    assert (chosen.bank, list(chosen.heads), chosen.head) == ("float16", ["tags"], None)


def mixes_of(recipe: BuildRecipe, path: Path, cache: Path, folder: Path) -> Mixes:
    """The mixes of a recipe without a gate."""
    import promptray.calibrate
    from promptray.calibrate.image_set import ImageSet
    from promptray.export.build import checked
    from promptray.export.sources import Sources
    from promptray.export.stage_cache import StageCache

    draft = checked(Sources(recipe, path), StageCache(cache), lambda *_: None).draft
    stages = StageCache(folder / "cache", promptray.calibrate)
    assert recipe.quantise is not None
    assert recipe.quantise.calibration is not None
    images = ImageSet(
        "calibration", recipe.quantise.calibration, path.parent, (), door=draft.manifest.door,
        preprocessing=draft.manifest.preprocessing, stages=stages, progress=lambda *_: None,
    )  # fmt: skip
    return Mixes(recipe, draft, images, stages, others=True)
