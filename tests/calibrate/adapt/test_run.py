"""The whole adaptation: its outcome is known, because anybody can see the class in the picture."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from promptray import Scorer
from promptray.calibrate.adapt.cases import Columns
from promptray.calibrate.adapt.run import Settings, adapt
from promptray.calibrate.adapt.stages import Workshop
from promptray.export.build import build
from promptray.export.tunable import load_tunable
from promptray.runtime.bundle import Bundle
from promptray.runtime.errors import PromptRayError
from tests.calibrate.adapt.conftest import COLUMNS, PATIENTS, SETTINGS
from tests.calibrate.adapt.made_site import (
    CLASSES,
    change_recipe,
    convnext_recipe,
    write_images,
    write_table,
    zero_shot_recipe,
)


def report_of(output: Path) -> dict:
    return json.loads((output / "report.json").read_text(encoding="utf-8"))


def splits_of(output: Path) -> list[dict[str, str]]:
    with (output / "splits.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_probe_sees_what_random_wordings_do_not(adapted_dual: Path) -> None:
    report = report_of(adapted_dual)
    stages = {stage["name"]: stage for stage in report["stages"]}
    assert list(stages) == ["zero-shot", "probe", "fine-tune"]
    assert stages["zero-shot"]["numbers"]["accuracy"]["value"] < 0.7
    assert stages["probe"]["numbers"]["accuracy"]["value"] > 0.9
    assert stages["probe"]["numbers"]["quadratic kappa"]["low"] > 0.8
    assert report["advice"]["by"] == "quadratic kappa"
    assert report["advice"]["stage"] in ("probe", "fine-tune")
    assert "is better than zero-shot" in report["advice"]["reasons"][0]
    assert stages["fine-tune"]["fine_tune"]["started_from"] == "probe"
    assert [part["units"] for part in report["division"]["parts"]] == [30, 6, 12]
    assert report["division"]["level"] == "patient"
    assert report["notes"][0] == "Images are kept together by the column patient_id (patient)."
    note = report["notes"][1]
    assert "fewer than 5 units have, or lack, dark (4), grey (4), bright (4)" in note


def test_a_classifier_has_no_zero_shot_stage_and_says_so(adapted_convnext: Path) -> None:
    report = report_of(adapted_convnext)
    assert [stage["name"] for stage in report["stages"]] == ["probe", "fine-tune"]
    assert "no zero-shot stage" in report["notes"][0]
    assert report["notes"][1] == "Numbers are of single images, not of examinations."
    assert report["stages"][0]["numbers"]["accuracy"]["value"] > 0.8
    assert "AUROC not dark (group)" in report["stages"][0]["numbers"]


@pytest.mark.parametrize("stage", ["probe", "fine-tune"])
@pytest.mark.parametrize("name", ["dual", "convnext"])
def test_the_recipe_of_a_stage_builds_its_bundle_again(
    request: pytest.FixtureRequest, shared_dir: Path, tmp_path: Path, name: str, stage: str
) -> None:
    output = request.getfixturevalue(f"adapted_{name}")
    again = build(output / stage / "recipe.yaml", tmp_path / "again.bundle", cache=shared_dir / "cache")
    first = Bundle.open(output / f"{stage}.bundle")
    assert again.manifest.files == first.manifest.files
    (head,) = first.manifest.heads
    assert head.relation == "ordinal"
    assert (first.manifest.examination is not None) == (name == "convnext")
    assert [finding.key for finding in first.manifest.findings] == list(CLASSES)
    assert f"Adapted ({stage}) to 60 labelled images" in first.manifest.model.training_data


@pytest.mark.parametrize("name", ["dual", "convnext"])
def test_the_bundles_logits_are_scikit_learns_decision_function(
    request: pytest.FixtureRequest, site: Path, name: str
) -> None:
    output = request.getfixturevalue(f"adapted_{name}")
    recipe = yaml.safe_load((site / name / "recipe.yaml").read_text())
    tunable = load_tunable(
        recipe["family"], Path(recipe["checkpoint"]), None, recipe.get("model_options", {})
    )
    import torch

    parts: dict[str, list[dict[str, str]]] = {"train": [], "test": []}
    for row in splits_of(output):
        parts.get(row["part"], []).append(row)
    vectors, logits = {}, []
    with Scorer.open(output / "probe.bundle", site=None) as scorer, torch.inference_mode():
        for part, rows in parts.items():
            made = []
            for row in rows:
                prepared = scorer.prepare(site / "images" / row["file"], modality="MG")
                made.append(tunable.tower(torch.from_numpy(prepared.network_input.pixels))[0].numpy())
                if part == "test":
                    scores = scorer.infer(prepared).scores
                    logits.append([scores[key].logit for key in CLASSES])
            vectors[part] = np.array(made, np.float64)
    facts = report_of(output)["stages"][-2]["probe"]
    truth = [CLASSES.index(row["class"]) for row in parts["train"]]
    regression = LogisticRegression(C=facts["c"], max_iter=10_000, tol=1e-6)
    theirs = make_pipeline(StandardScaler(), regression).fit(vectors["train"], truth)
    expected = theirs.decision_function(vectors["test"])
    assert np.abs(np.array(logits) - expected).max() < 1e-3 * max(1.0, np.abs(expected).max())


def test_nothing_that_is_written_names_a_patient(adapted_dual: Path) -> None:
    for path in adapted_dual.rglob("*"):
        if path.is_file():
            assert b"secret-" not in path.read_bytes(), path


def test_training_that_was_killed_ends_as_the_whole_one(
    site: Path, adapted_convnext: Path, shared_dir: Path, tmp_path: Path
) -> None:
    def stop(stage: str, message: str, fraction: float) -> None:
        if message.startswith("epoch 1:"):
            raise KeyboardInterrupt

    given = (
        site / "convnext" / "recipe.yaml",
        site / "images",
        site / "labels.csv",
        COLUMNS,
        tmp_path / "out",
    )
    with pytest.raises(KeyboardInterrupt):
        adapt(*given, SETTINGS, cache=shared_dir / "cache", progress=stop)
    assert (tmp_path / "out" / "fine-tune.state.safetensors").exists()
    assert not (tmp_path / "out" / "report.json").exists()
    seen = []
    adapt(
        *given, SETTINGS, cache=shared_dir / "cache", progress=lambda _, message, part: seen.append(message)
    )
    assert not any(message.startswith("epoch 1:") for message in seen)
    assert any(message.startswith("epoch 2:") for message in seen)
    for name in (
        "probe/tuned.safetensors",
        "fine-tune/tuned.safetensors",
        "features.safetensors",
        "splits.csv",
    ):
        assert (tmp_path / "out" / name).read_bytes() == (adapted_convnext / name).read_bytes(), name
    ours, theirs = report_of(tmp_path / "out"), report_of(adapted_convnext)
    for one, other in zip(ours["stages"], theirs["stages"], strict=True):
        assert one["numbers"] == other["numbers"]
    assert not list((tmp_path / "out").glob("*.state*"))


def test_a_folder_of_another_run_or_with_a_report_is_refused(
    site: Path, adapted_convnext: Path, shared_dir: Path, tmp_path: Path
) -> None:
    recipe, images, labels = site / "convnext" / "recipe.yaml", site / "images", site / "labels.csv"
    with pytest.raises(PromptRayError) as refused:
        adapt(recipe, images, labels, COLUMNS, adapted_convnext, SETTINGS)
    assert refused.value.code == "output.exists"
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(adapted_convnext / "run.json", begun)
    with pytest.raises(PromptRayError) as refused:
        adapt(recipe, images, labels, COLUMNS, begun, replace(SETTINGS, seed=1))
    assert refused.value.code == "adapt.state"
    assert refused.value.found == f"other seed ({SETTINGS.seed}, now 1)"
    (begun / "features.safetensors").write_bytes((adapted_convnext / "features.safetensors").read_bytes())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("private")
    with pytest.raises(PromptRayError) as refused:
        adapt(recipe, images, labels, COLUMNS, tmp_path / "mine", SETTINGS)
    assert refused.value.code == "output.exists"


class Small:
    """A site of its own, to break; its model is the tiny ConvNeXt."""

    def __init__(self, folder: Path, cache: Path) -> None:
        self.folder, self.cache = folder, cache
        self.rows = write_images(folder / "images", 30, per_patient=1)
        self.recipe = convnext_recipe(folder / "recipe", groups=None)

    def adapt(self, columns: Columns = COLUMNS, **settings: object) -> dict:
        given = {"modality": "MG", "stages": ["probe"], "draws": 50, **settings}
        labels = write_table(self.folder / "labels.csv", self.rows)
        output = self.folder / "out"
        adapt(
            self.recipe, self.folder / "images", labels, columns, output, Settings(**given), cache=self.cache
        )  # type: ignore[arg-type]
        return report_of(output)

    def code(self, columns: Columns = COLUMNS, **settings: object) -> str:
        with pytest.raises(PromptRayError) as refused:
            self.adapt(columns, **settings)
        assert "secret-" not in str(refused.value)
        return refused.value.code


@pytest.fixture
def small(tmp_path: Path, shared_dir: Path) -> Small:
    return Small(tmp_path, shared_dir / "cache")


def test_without_ids_the_report_says_that_it_is_optimistic(small: Small) -> None:
    for row in small.rows:
        del row["patient_id"]
    report = small.adapt()
    assert report["division"]["level"] == "image"
    assert any("optimistic" in note for note in report["notes"])
    assert "optimistic" in (small.folder / "out" / "report.md").read_text()
    assert report["advice"]["stage"] is None  # one stage: nothing to compare


def test_unreadable_and_absent_images_are_refused_or_listed(small: Small) -> None:
    (small.folder / "images" / "p000-0.png").write_bytes(b"no picture")
    assert small.code() == "adapt.images"
    assert small.code(modality=None) == "adapt.images"  # other options in the same folder: nothing began
    (small.folder / "images" / "p001-0.png").unlink()
    assert small.code() == "table.image"
    report = small.adapt(missing="count")
    left_out = {image["image"]: image["code"] for image in report["data"]["left_out"]}
    assert left_out == {"line 3": "image.not-found", "line 2": "image.format"}
    assert report["data"]["images"] == 28
    assert sum(part["images"] for part in report["division"]["parts"]) == 28


def test_a_zero_shot_run_reads_images_before_it_begins(small: Small) -> None:
    small.recipe = zero_shot_recipe(small.folder / "dual")
    (small.folder / "images" / "p000-0.png").write_bytes(b"no picture")
    stages = ["zero-shot"]
    assert small.code(stages=stages) == "adapt.images"
    assert small.code(stages=stages, modality=None) == "adapt.images"  # none is readable; nothing began
    assert small.code(stages=stages, modality=None, missing="count") == "adapt.images"
    report = small.adapt(stages=stages, missing="count")
    assert report["data"]["left_out"] == [{"image": "line 2", "code": "image.format"}]
    assert report["data"]["images"] == 29


def test_images_that_are_spoilt_while_it_runs_are_an_error(
    small: Small, monkeypatch: pytest.MonkeyPatch
) -> None:
    build = Workshop.zero_shot

    def spoil(shop: Workshop) -> None:
        build(shop)
        for path in (small.folder / "images").iterdir():
            path.write_bytes(b"no picture")

    small.recipe = zero_shot_recipe(small.folder / "dual")
    monkeypatch.setattr(Workshop, "zero_shot", spoil)
    assert small.code(stages=["zero-shot"]) == "adapt.images"


def test_a_copy_counts_once_and_is_listed(small: Small) -> None:
    images = small.folder / "images"
    shutil.copy(images / "p000-0.png", images / "p003-0.png")
    report = small.adapt()
    assert report["division"]["copies"] == [["line 2", "line 5"]]
    assert [row["file"] for row in splits_of(small.folder / "out")].count("p003-0.png") == 0
    assert (report["data"]["images"], report["data"]["unlabelled_files"]) == (29, 0)
    assert any("Each counts once" in note for note in report["notes"])


def test_a_stated_division_is_kept_and_leaks_are_refused(small: Small) -> None:
    columns = Columns("density", split="part")
    for number, row in enumerate(small.rows):
        row["part"] = "test" if number >= 21 else "train"
    small.rows[0]["patient_id"] = small.rows[29]["patient_id"]
    assert small.code(columns) == "adapt.split"
    small.rows[0]["patient_id"] = "secret-000"
    shutil.copy(small.folder / "images" / "p000-0.png", small.folder / "images" / "p027-0.png")
    assert small.code(columns) == "adapt.split"
    write_images(small.folder / "images", 30, per_patient=1)
    report = small.adapt(columns)
    assert report["division"]["how"] == "stated"
    assert {part["name"]: part["images"] for part in report["division"]["parts"]} == {"train": 21, "test": 9}


def test_training_that_diverges_names_what_to_change(small: Small) -> None:
    diverging = {"epochs": 3, "batch": 4, "rate": 1e30}
    stages = ["fine-tune"]
    assert small.code(stages=stages, training=diverging) == "adapt.diverged"
    with pytest.raises(PromptRayError) as refused:
        small.adapt(stages=stages, training={**diverging, "rate": 1e-4})
    assert refused.value.code == "adapt.state"
    assert refused.value.found == "other learning_rate (1e+30, now 0.0001)"


def test_golden_images_belong_to_a_run(small: Small, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*given: object) -> None:
        raise RuntimeError("killed")

    golden = small.folder / "recipe" / "own"
    shutil.copytree(small.folder / "images", golden)
    change_recipe(small.recipe, golden={"images": "own", "licence": "CC0-1.0"})
    monkeypatch.setattr(Workshop, "probe", killed)
    with pytest.raises(RuntimeError, match="killed"):
        small.adapt()
    shutil.copy(golden / "p000-0.png", golden / "p001-0.png")
    with pytest.raises(PromptRayError) as refused:
        small.adapt()
    assert (refused.value.code, refused.value.found) == ("adapt.state", "other golden images")


def test_a_recipe_or_table_that_is_refused_leaves_no_folder(small: Small) -> None:
    assert small.code(Columns("birads")) == "table.format"
    small.recipe = small.folder / "nowhere.yaml"
    assert small.code() == "recipe.invalid"
    assert not (small.folder / "out").exists()


def test_too_few_of_a_class_are_refused(small: Small) -> None:
    small.rows = [row for row in small.rows if row["density"] != "grey"] + [
        row for row in small.rows if row["density"] == "grey"
    ][:2]
    assert small.code() == "adapt.too-few"


def test_recipes_without_classes_are_refused(small: Small, tmp_path: Path, carzero_recipe) -> None:
    small.recipe = zero_shot_recipe(tmp_path / "pairs", relation="independent")
    assert small.code() == "adapt.recipe"
    small.recipe = carzero_recipe()
    assert small.code() == "adapt.recipe"
    small.recipe = convnext_recipe(tmp_path / "convnext", groups=None)
    assert small.code(stages=["zero-shot", "probe"]) == "adapt.recipe"
    assert small.code(class_names={"x": "no such class"}) == "adapt.recipe"
    change_recipe(small.recipe, checkpoint="nowhere.pth")
    assert small.code() == "checkpoint.not-found"


def test_a_table_may_call_classes_otherwise(small: Small) -> None:
    for row in small.rows:
        row["density"] = {"dark": "Dark", "grey": "2", "bright": "bright"}[
            row["density"]
        ]  # display, own, key
    report = small.adapt(class_names={"2": "grey"})
    assert [sum(part["classes"][key] for part in report["division"]["parts"]) for key in CLASSES] == [10] * 3


def test_a_tuned_checkpoint_can_be_adapted_again(small: Small, adapted_dual: Path, tmp_path: Path) -> None:
    shutil.copytree(adapted_dual / "probe", tmp_path / "again")
    shutil.copytree(adapted_dual / "golden", tmp_path / "golden")
    small.recipe = tmp_path / "again" / "recipe.yaml"
    change_recipe(small.recipe, name="again")
    report = small.adapt()
    assert report["family"] == "open_clip"
    assert [stage["name"] for stage in report["stages"]] == ["probe"]
    assert report["stages"][0]["numbers"]["accuracy"]["value"] > 0.8


def test_shares_that_leave_nothing_are_refused() -> None:
    for shares in ({"test": 0.9, "val": 0.1}, {"test": 0.0}, {"val": -0.1}):
        with pytest.raises(ValueError, match="shares of the images"):
            Settings(**shares)


def test_the_page_shows_every_stage_and_the_notes(adapted_dual: Path) -> None:
    page = (adapted_dual / "report.md").read_text(encoding="utf-8")
    assert "| test part | zero-shot | probe | fine-tune |" in page
    assert "is no proof of medical worth" in page
    assert f"Rows without a class: 0. Files that no row names: {0}." in page
    assert (adapted_dual / "report.png").read_bytes().startswith(b"\x89PNG")
    assert page.count("\n| quadratic kappa |") == 2
    assert sum(int(row["unit"]) > 0 for row in splits_of(adapted_dual)) == 2 * PATIENTS
