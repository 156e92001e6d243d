"""A recipe's section `distil_text`: a smaller text graph, gated on prompts that it did not learn."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from filelock import FileLock
from PIL import Image

from promptray import BuildError, BundleError, Scorer
from promptray.calibrate.distil import text_run
from promptray.calibrate.pipeline import build
from promptray.calibrate.pipeline.recipe import BuildRecipe, TextDistilRecipe, check_sections, kind_of
from promptray.cli import cli
from promptray.export.recipe import read_recipe_as
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.parity import read_parity
from promptray.runtime.bundle.parse import parse_manifest
from promptray.runtime.gate_limits import LIMITS
from promptray.runtime.graphs import own_bank
from promptray.runtime.machine_class import machine_class
from promptray.runtime.verify import verify
from tests import convnext_tiny, open_clip_tiny
from tests.cache_copy import copy_cache
from tests.calibrate.pipeline.students import lenient
from tests.calibrate.pipeline.test_build import files_of

IMAGES = 30
SAID = "There is zzyzx granuloma."
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
DISTIL_TEXT: dict[str, Any] = {
    "layers": 2,
    "wordings": "wordings.txt",
    "generated": 0,
    "held_out": 2,
    "validation": 0.3,
    "epochs": 1,
    "batch": 8,
    "rate": 1e-3,
}
GATE: dict[str, Any] = {"images": "gate", "source": "noise"}


def write_noise(folder: Path, count: int, seed: int) -> None:
    """Write pictures of large cells of any level."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    for number in range(count):
        levels = np.kron(random.integers(0, 256, (4, 4)), np.ones((16, 16)))
        Image.fromarray(levels.astype(np.uint8)).save(folder / f"{number:02}.png")


def text_recipe(folder: Path, **changes: Any) -> Path:
    """Write the tiny dual encoder's recipe with a text student, wordings and pictures; None removes a key."""
    if not (folder / "gate").exists():
        write_noise(folder / "gate", IMAGES, seed=0)
        lines = [f"{start} {term}." for start in ("There is", "The chest shows") for term in TERMS]
        (folder / "wordings.txt").write_text("\n".join([*lines, SAID]), encoding="utf-8")
    return open_clip_tiny.write_recipe(folder, **{"distil_text": DISTIL_TEXT, "gate": GATE, **changes})


@pytest.fixture(scope="session")
def teacher(shared_dir: Path) -> Path:
    """A folder with the recipe, its pictures, the teacher's bundle, and a cache with it. Read only."""
    folder = shared_dir / "text-teacher"
    shared_dir.mkdir(parents=True, exist_ok=True)
    with FileLock(shared_dir / "text-teacher.lock"):
        if not folder.exists():
            made = shared_dir / "text-teacher.partial"
            text_recipe(made)
            plain = text_recipe(made / "plain", distil_text=None, gate=None)
            build(plain, made / "teacher.bundle", cache=made / "cache")
            made.rename(folder)
    return folder


@pytest.fixture
def place(teacher: Path, tmp_path: Path) -> Path:
    """A copy of it to write in."""
    return Path(shutil.copytree(teacher, tmp_path / "place"))


@pytest.fixture
def wide() -> Iterator[None]:
    """Limits that any student keeps."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LIMITS, "student", lenient())
        yield


@pytest.fixture(scope="session")
def small_text(shared_dir: Path, teacher: Path) -> Path:
    """A bundle whose text student was let through by wide limits. Read only; its stages are beside."""
    folder = shared_dir / "text-student"
    with FileLock(shared_dir / "text-student.lock"), pytest.MonkeyPatch.context() as patch:
        if not folder.exists():
            patch.setitem(LIMITS, "student", lenient())
            made = Path(shutil.copytree(teacher, shared_dir / "text-student.partial"))
            build(made / "recipe.yaml", made / "small.bundle", cache=made / "cache")
            made.rename(folder)
    return folder / "small.bundle"


def test_a_text_student_after_one_step_is_refused_and_not_written(place: Path) -> None:
    path = text_recipe(place, distil_text={**DISTIL_TEXT, "steps": 1})
    with pytest.raises(BuildError, match="REFUSED") as refusal:
        build(path, place / "one.bundle", cache=place / "cache")
    assert refusal.value.code == "gate.failed"
    assert not (place / "one.bundle").exists()
    report = json.loads((place / "one.bundle.gate" / "text.json").read_text())
    assert report["verdict"] == "refused"
    keys = [each["key"] for each in report["findings"]]
    assert keys == [*open_clip_tiny.CLASSES, "held-out wording 1", "held-out wording 2"]
    assert any("2 of the checkpoint's 3 blocks" in note for note in report["notes"])
    assert any("patients of the golden images" in note for note in report["notes"])
    assert not list((place / "one.bundle.gate").glob("head-*"))


def test_a_text_student_says_whose_it_is_and_runs_on_any_machine(
    small_text: Path, teacher: Path, wide: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, before = Bundle.open(small_text), Bundle.open(teacher / "teacher.bundle")
    text = bundle.manifest.provenance.distilled_text
    assert text is not None
    assert (text.layers, text.teacher_layers) == (2, 3)
    (gate,) = read_parity(bundle).gates
    assert (gate.consumer, gate.of, gate.kind) == ("onnxruntime-cpu", "added prompts", "student")
    (graph,) = gate.graphs
    assert (graph.graph, graph.precision) == ("text", "fp32")
    assert graph.bytes_after < graph.bytes_before == len(before.read("graphs/text/fp32-20.onnx"))
    verify(small_text, site=None)
    monkeypatch.setattr("promptray.runtime.machine_class.machine_class", lambda: "aarch64")
    with Scorer.open(small_text, site=None) as scorer:
        report = scorer.check_golden()
        assert {each.against for each in report.heads} == {"original"}
        assert report.text_error is not None


def test_shipped_findings_stay_the_teachers_and_no_prompt_travels(
    small_text: Path, teacher: Path, wide: None
) -> None:
    ours, theirs = Bundle.open(small_text), Bundle.open(teacher / "teacher.bundle")
    heads = [each.manifest.text_head for each in (ours, theirs)]
    assert heads[0] is not None
    assert heads[1] is not None
    assert heads[0].bank.id != heads[1].bank.id
    for mine, own in zip(own_bank(ours, heads[0]), own_bank(theirs, heads[1]), strict=True):
        assert all(np.array_equal(mine.tensors[name], own.tensors[name]) for name in own.tensors)
    picture = teacher / "gate" / "00.png"
    with (
        Scorer.open(small_text, site=None) as small,
        Scorer.open(teacher / "teacher.bundle", site=None) as big,
    ):
        for each in (small, big):
            each.prompts.add("again", "an unremarkable film")
        found, expected = (each.score(picture, modality="DX").scores for each in (small, big))
        assert found["again"].logit != expected["again"].logit


def test_no_wording_of_the_file_is_kept(small_text: Path) -> None:
    folder = small_text.parent
    kept = [path for part in (folder / "cache", small_text) for path in part.rglob("*") if path.is_file()]
    assert any(path.parent.name.startswith("distil-text") for path in kept)
    assert not [path.name for path in kept if b"zzyzx" in path.read_bytes()]
    assert not [path.name for path in kept if b"wordings.txt" in path.read_bytes()]


def test_a_second_build_neither_learns_nor_scores(
    small_text: Path, tmp_path: Path, wide: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(shutil.copytree(small_text.parent, tmp_path / "again"))

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a finished stage ran again")

    monkeypatch.setattr(text_run, "distil_text", never)
    monkeypatch.setattr("promptray.calibrate.pipeline.scores._score", never)
    build(place / "recipe.yaml", place / "again.bundle", cache=place / "cache")
    assert files_of(place / "again.bundle") == files_of(small_text)


def test_a_text_student_is_quantised_and_held_once(small_text: Path, tmp_path: Path, wide: None) -> None:
    place = Path(shutil.copytree(small_text.parent, tmp_path / "quantised"))
    recipe = text_recipe(place, quantise={"text": {"scheme": "int8-dynamic"}})
    build(recipe, place / "x.bundle", cache=place / "cache")
    bundle = Bundle.open(place / "x.bundle")
    (gate,) = read_parity(bundle).gates
    assert (gate.consumer, gate.of, gate.kind) == (
        f"onnxruntime-cpu@{machine_class()}",
        "added prompts",
        "student",
    )
    (graph,) = gate.graphs
    assert graph.precision == "int8-dynamic"
    small = Bundle.open(small_text)
    assert graph.bytes_after < len(small.read("graphs/text/fp32-20.onnx"))
    verify(place / "x.bundle", site=None)


def test_beside_a_quantised_image_graph_both_are_gated_for_this_class(
    small_text: Path, tmp_path: Path, wide: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(shutil.copytree(small_text.parent, tmp_path / "both"))
    monkeypatch.setitem(LIMITS, "fp16", lenient())
    write_noise(place / "ranges", 4, seed=1)
    calibration = {"images": "ranges", "source": "other noise"}
    recipe = text_recipe(place, quantise={"image": {"scheme": "fp16"}, "calibration": calibration})
    build(recipe, place / "x.bundle", cache=place / "cache")
    bundle = Bundle.open(place / "x.bundle")
    here = f"onnxruntime-cpu@{machine_class()}"
    assert [(each.consumer, each.of, each.kind) for each in read_parity(bundle).gates] == [
        (here, "scores", "fp16"),
        (here, "added prompts", "student"),
    ]
    found = {each.role: (each.precision, each.consumers) for each in bundle.manifest.graphs}
    assert found["text"] == ("fp32", [here])
    verify(place / "x.bundle", site=None)


def test_beside_a_bank_in_less_the_text_graph_is_for_any_machine(
    small_text: Path, tmp_path: Path, wide: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(shutil.copytree(small_text.parent, tmp_path / "bank"))
    monkeypatch.setitem(LIMITS, "fp16", lenient())
    build(text_recipe(place, quantise={"bank": "float16"}), place / "x.bundle", cache=place / "cache")
    gates = read_parity(Bundle.open(place / "x.bundle")).gates
    assert [(each.consumer, each.of, each.kind) for each in gates] == [
        ("onnxruntime-cpu", "scores", "fp16"),
        ("onnxruntime-cpu", "added prompts", "student"),
    ]
    verify(place / "x.bundle", site=None)


def test_inspect_names_the_text_side(small_text: Path, wide: None) -> None:
    shown = CliRunner().invoke(cli, ["inspect", str(small_text), "--no-site"], terminal_width=400).output
    assert "2 of 3 blocks" in " ".join(shown.split())


def test_limits_that_were_widened_are_refused_by_a_reader(small_text: Path) -> None:
    with pytest.raises(BundleError, match="a bound for student"):
        verify(small_text, site=None)


def test_a_manifest_that_hides_its_gate_is_refused(small_text: Path) -> None:
    content = json.loads((small_text / "bundle.json").read_bytes())
    for hidden in ([], [{**content["gated"][0], "text": None}]):
        with pytest.raises(BundleError) as refusal:
            parse_manifest(json.dumps({**content, "gated": hidden}).encode())
        assert refusal.value.code == "bundle.format"
        assert "gated" in refusal.value.message


def sections(path: Path, **changes: Any) -> BuildRecipe:
    return read_recipe_as(text_recipe(path, **changes), BuildRecipe)


def test_limits_of_the_text_side_loosen_no_other(tmp_path: Path) -> None:
    quantise = {"image": {"scheme": "int8-dynamic"}}
    both = sections(tmp_path, quantise=quantise)
    assert kind_of(both, "x") == "int8"
    assert kind_of(both, "x", added=True) == "student"
    assert kind_of(sections(tmp_path, quantise=quantise, distil_text=None), "x", added=True) == "int8"


def test_limits_of_scores_are_held_only_where_scores_change(tmp_path: Path) -> None:
    wide = LIMITS["student"].mean_delta
    assert wide > LIMITS["fp16"].mean_delta
    gate = {**GATE, "kind": "student", "limits": {"mean_delta": wide}}
    for quantise in (None, {"text": {"scheme": "int8-dynamic"}}):
        recipe = sections(tmp_path, gate=gate, quantise=quantise)
        check_sections(recipe, "recipe.yaml", ["findings"], text=True)
    for key, asked in (("gate.kind", gate), ("gate.limits.mean_delta", {**gate, "kind": None})):
        recipe = sections(tmp_path, gate=asked, quantise={"bank": "float16"})
        with pytest.raises(BuildError) as refusal:
            check_sections(recipe, "recipe.yaml", ["findings"], text=True)
        assert key in str(refusal.value.artefact)


@pytest.mark.parametrize(
    ("changes", "key"),
    [({"gate": None}, "distil_text"), ({"text_graph": False}, "distil_text")],
)
def test_a_section_that_does_not_fit_is_refused(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    recipe = sections(tmp_path, **changes)
    with pytest.raises(BuildError) as refusal:
        check_sections(recipe, "recipe.yaml", ["findings"], text=recipe.text_graph)
    assert refusal.value.code == "recipe.invalid"
    assert f"key {key}" in str(refusal.value.artefact)


def test_a_model_without_wordings_is_refused_by_its_recipe(tmp_path: Path, learning: Path) -> None:
    text_recipe(tmp_path / "images")
    gate = {"images": str(tmp_path / "images" / "gate"), "source": "noise"}
    settings = {key: value for key, value in DISTIL_TEXT.items() if key != "wordings"}
    path = convnext_tiny.write_recipe(tmp_path / "recipe", distil_text=settings, gate=gate)
    with pytest.raises(BuildError, match="text graph") as refusal:
        build(path, tmp_path / "x.bundle", cache=copy_cache(learning / "cache", tmp_path))
    assert refusal.value.code == "recipe.invalid"


def test_golden_pictures_may_not_be_gated_on(place: Path) -> None:
    shutil.copy(place / "golden" / "00.png", place / "gate" / "copy.png")
    with pytest.raises(BuildError, match="golden images") as refusal:
        build(place / "recipe.yaml", place / "x.bundle", cache=place / "cache")
    assert refusal.value.code == "gate.images"


def test_findings_that_are_one_unit_are_refused(place: Path) -> None:
    with pytest.raises(BuildError, match="no prompt can be added") as refusal:
        build(text_recipe(place, relation="ordinal"), place / "x.bundle", cache=place / "cache")
    assert refusal.value.code == "distil.student"


def test_settings_are_those_of_the_recipe() -> None:
    recipe = TextDistilRecipe(**{**DISTIL_TEXT, "seed": 3})
    assert recipe.settings.seed == 3
    assert not hasattr(recipe.settings, "wordings")
