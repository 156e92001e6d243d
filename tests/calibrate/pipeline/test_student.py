"""A recipe's section `distil`: a student gated against its teacher, or nothing with the reports beside."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from promptray import BuildError, BundleError, Scorer
from promptray.calibrate.distil import run as run_module
from promptray.calibrate.distil.settings import read_settings
from promptray.calibrate.pipeline import build
from promptray.calibrate.pipeline.recipe import BuildRecipe, DistilRecipe, check_sections, kind_of
from promptray.cli import cli
from promptray.export.recipe import read_recipe_as
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.parity import read_parity
from promptray.runtime.gate_limits import LIMITS
from promptray.runtime.machine_class import machine_class
from promptray.runtime.verify import verify
from tests import asg_tiny, bundle_factory, carzero_tiny, convnext_tiny
from tests.calibrate.pipeline.students import (
    DISTIL,
    GATE,
    GATED,
    LEARNED,
    lenient,
    student_recipe,
    write_steps,
)
from tests.calibrate.pipeline.test_build import files_of


@pytest.fixture
def place(learning: Path, tmp_path: Path) -> Path:
    """A copy of it to write in."""
    return Path(shutil.copytree(learning, tmp_path / "place"))


@pytest.fixture
def student_bundle(let_through: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same while the limits are wide: with its own ones a reader would refuse its report."""
    monkeypatch.setitem(LIMITS, "student", lenient())
    return let_through


def test_limits_that_were_too_wide_are_refused(let_through: Path) -> None:
    with pytest.raises(BundleError, match="a bound for student") as refusal:
        Scorer.open(let_through, site=None)
    assert refusal.value.code == "bundle.format"


def test_a_student_after_one_step_is_refused_and_not_written(place: Path) -> None:
    path = student_recipe(place, distil={**DISTIL, "steps": 1})
    with pytest.raises(BuildError, match="REFUSED") as refusal:
        build(path, place / "one.bundle", cache=place / "cache")
    assert refusal.value.code == "gate.failed"
    assert "docs/distillation.md" in str(refusal.value.cure)
    assert not (place / "one.bundle").exists()
    report = json.loads((place / "one.bundle.gate" / "head-classes.json").read_text())
    assert report["verdict"] == "refused"
    assert report["images"] == GATED
    assert any(
        "a student, test_vit" in note and f"{LEARNED} other images" in note for note in report["notes"]
    )
    assert (place / "one.bundle.gate" / "head-classes.html").exists()


def thin_teacher(path: Path) -> Path:
    """Write the tiny ConvNeXt with second blocks that add little: what may be left out of a tower."""
    state = torch.load(convnext_tiny.FOLDER / convnext_tiny.CHECKPOINTS["timm"], weights_only=True)
    for name in state:
        if ".blocks.1.gamma" in name:
            state[name] *= 0.0005
    torch.save(state, path)
    return path


def test_a_student_of_the_teachers_own_blocks_passes_the_limits_of_students(tmp_path: Path) -> None:
    """Nothing is loosened: 700 pictures are enough to show that 1 % do not flip."""
    write_steps(tmp_path / "learn", 2 * LEARNED, 0)
    write_steps(tmp_path / "gate", 700, 1)
    own = {"student": "teacher", "layers": 4, "epochs": 12, "batch": 16, "rate": 1e-5}
    path = convnext_tiny.write_recipe(
        tmp_path,
        "timm",
        checkpoint=thin_teacher(tmp_path / "thin.pth").name,
        distil={**DISTIL, **own},
        gate=GATE,
    )
    bundle = build(path, tmp_path / "own.bundle", cache=tmp_path / "cache")
    student = bundle.manifest.provenance.distilled
    assert student is not None
    assert student.student == "own tower with 4 layers"
    (gate,) = read_parity(bundle).gates
    report = json.loads(bundle.read(gate.report))
    bounds = {each["name"]: each["bound"] for each in report["gates"]}
    assert bounds == {name: bound for name, bound in asdict(LIMITS["student"]).items() if name in bounds}
    assert {"flips", "spearman", "map_overlap"} <= bounds.keys()
    assert {each["verdict"] for each in report["gates"]} == {"passed"}
    (learned,) = (tmp_path / "cache").glob("distil-*/student.json")
    facts = json.loads(learned.read_text(encoding="utf-8"))
    assert facts["best"] > 0
    assert facts["parameters"] < 0.7 * facts["teacher_parameters"]
    with Scorer.open(bundle.path, site=None) as scorer:
        scores = scorer.score(tmp_path / "gate" / "001.png", modality="MG").scores
    assert all(np.isfinite(score.logit) for score in scores.values())


def test_a_student_says_whose_it_is_and_runs_on_any_machine(
    student_bundle: Path, learning: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, teacher = Bundle.open(student_bundle), Bundle.open(learning / "teacher.bundle")
    made, original = bundle.manifest, teacher.manifest
    student = made.provenance.distilled
    assert student is not None
    assert (student.student, student.images.images, student.images.source) == (
        "test_vit",
        LEARNED,
        "steps, even",
    )
    assert made.provenance.checkpoint == original.provenance.checkpoint
    assert [each.consumers for each in made.graphs] == [["onnxruntime-cpu"]] * 2
    assert [each.bank.id for each in made.heads] == [each.bank.id for each in original.heads]
    (gate,) = read_parity(bundle).gates
    assert (gate.consumer, gate.kind, gate.verdict, gate.labelled) == (
        "onnxruntime-cpu",
        "student",
        "passed",
        False,
    )
    (graph,) = gate.graphs
    before = len(teacher.read(original.graphs[0].file))
    assert (graph.graph, graph.precision, graph.bytes_before) == ("image", "fp32", before)
    assert {"timm", "torch"} <= gate.tools.keys()
    monkeypatch.setattr("promptray.runtime.machine_class.machine_class", lambda: "aarch64")
    with Scorer.open(student_bundle, site=None) as scorer:
        (head,) = scorer.check_golden().heads
        assert head.against == "gated answers"
        assert head.score_error <= head.score_tolerance == made.heads[0].score_tolerance


def test_its_golden_answers_are_its_own(student_bundle: Path, learning: Path) -> None:
    verify(student_bundle, site=None)
    shown = CliRunner().invoke(cli, ["inspect", str(student_bundle), "--no-site"], terminal_width=400).output
    assert "student (torch fp32" in " ".join(shown.split())
    assert "passed against its teacher, the checkpoint in fp32" in " ".join(shown.split())
    said = CliRunner().invoke(cli, ["verify", str(student_bundle), "--no-site"]).output
    assert "against the gated answers" in said
    assert "of a golden score to the student in fp32" in said
    with (
        Scorer.open(student_bundle, site=None) as small,
        Scorer.open(learning / "teacher.bundle", site=None) as big,
    ):
        picture = next((learning / "gate").iterdir())
        ours, theirs = (each.score(picture, modality="MG").scores for each in (small, big))
    assert ours["A"].logit != theirs["A"].logit


def test_inspect_names_teacher_and_images(student_bundle: Path) -> None:
    found = json.loads(
        CliRunner().invoke(cli, ["inspect", str(student_bundle), "--no-site", "--json"]).output
    )
    student = found["manifest"]["provenance"]["distilled"]
    shown = "".join(CliRunner().invoke(cli, ["inspect", str(student_bundle), "--no-site"]).output.split())
    for said in ("test_vit", student["teacher"][:16], f"{LEARNED}images"):
        assert said in shown


def test_a_second_build_neither_learns_nor_scores(
    student_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(shutil.copytree(student_bundle.parent, tmp_path / "again"))

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("a finished stage ran again")

    monkeypatch.setattr(run_module, "distil", never)
    monkeypatch.setattr("promptray.calibrate.pipeline.scores._score", never)
    monkeypatch.setattr("promptray.export.build._export", never)
    build(place / "recipe.yaml", place / "again.bundle", cache=place / "cache")
    assert files_of(place / "again.bundle") == files_of(student_bundle)


def test_a_student_is_quantised_and_held_against_its_teacher(
    student_bundle: Path, learning: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(shutil.copytree(student_bundle.parent, tmp_path / "small"))
    calibration = {"images": "learn", "source": "steps, even"}
    quantise = {"image": {"scheme": "int8-qdq"}, "calibration": calibration}
    build(student_recipe(place, quantise=quantise), place / "x.bundle", cache=place / "cache")
    bundle, teacher = Bundle.open(place / "x.bundle"), Bundle.open(learning / "teacher.bundle").manifest
    provenance = bundle.manifest.provenance
    assert provenance.distilled is not None
    assert provenance.calibration == provenance.distilled.images
    (gate,) = read_parity(bundle).gates
    assert (gate.consumer, gate.kind) == (f"onnxruntime-cpu@{machine_class()}", "student")
    report = json.loads(bundle.read(gate.report))
    assert "student test_vit, image int8-qdq" in report["candidate"]["name"]
    (graph,) = gate.graphs
    assert graph.bytes_before == teacher.files[teacher.graphs[0].file].size
    (head,) = verify(place / "x.bundle", site=None).golden.heads
    assert (head.against, head.golden) == ("gated answers", "student")
    assert head.golden_score_error > head.score_error


def test_an_fp32_student_beside_a_quantised_head_is_for_this_class_of_machine(
    student_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Path(shutil.copytree(student_bundle.parent, tmp_path / "head"))
    monkeypatch.setitem(LIMITS, "student", lenient())
    calibration = {"images": "learn", "source": "steps, even"}
    path = student_recipe(place, quantise={"head": {"scheme": "fp16"}, "calibration": calibration})
    made = build(path, place / "x.bundle", cache=place / "cache").manifest
    here = f"onnxruntime-cpu@{machine_class()}"
    assert [(each.precision, each.consumers) for each in made.graphs] == [("fp32", [here]), ("fp16", [here])]
    (gated,) = made.gated
    assert gated.consumer == here
    verify(place / "x.bundle", site=None)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_build_killed_while_it_trained_goes_on_to_the_same_student(
    student_bundle: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from promptray.calibrate.pipeline import build\n"
        "def kill(stage, message, fraction):\n"
        "    if message.startswith('epoch 1:'):\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "build(*map(Path, sys.argv[1:3]), cache=Path(sys.argv[3]), progress=kill)\n"
    )
    command = [
        sys.executable,
        "-c",
        script,
        str(place / "recipe.yaml"),
        str(place / "x.bundle"),
        str(place / "cache"),
    ]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=False)
    assert done.returncode == -signal.SIGKILL
    (work,) = (place / "cache").glob("distil-*.work")
    assert (work / run_module.STATE).exists()
    monkeypatch.setattr("promptray.calibrate.distil.teacher.Teacher.encode", _never_again)
    build(place / "recipe.yaml", place / "x.bundle", cache=place / "cache")
    assert not work.exists()
    assert files_of(place / "x.bundle") == files_of(student_bundle)


def _never_again(*_: Any) -> None:
    raise AssertionError("the teacher's answers were kept")


def test_pictures_may_not_be_learned_and_gated_on(place: Path) -> None:
    shutil.copy(place / "learn" / "000.png", place / "gate" / "copy.png")
    with pytest.raises(BuildError, match="distilled") as refusal:
        build(place / "recipe.yaml", place / "x.bundle", cache=place / "cache")
    assert refusal.value.code == "gate.images"
    assert not list((place / "cache").glob("distil-*"))


def test_labels_add_the_gates_of_auroc(let_through: Path, learning: Path, tmp_path: Path) -> None:
    """Labels are what the teacher says, so its AUROC is 1 and a student of two epochs loses much of it."""
    place = Path(shutil.copytree(let_through.parent, tmp_path / "labelled"))
    names = write_steps(place / "more", 70, 1)
    with Scorer.open(learning / "teacher.bundle", site=None) as teacher:
        said = [teacher.score(place / "more" / name, modality="MG").scores["A"].logit for name in names]
    rows = [f"{name},{name},{logit > np.median(said):d}" for name, logit in zip(names, said, strict=True)]
    (place / "gate.csv").write_text("\n".join(["file,patient_id,A", *rows]) + "\n", encoding="utf-8")
    path = student_recipe(place, gate={"images": "more", "labels": "gate.csv", "source": "steps"})
    with pytest.raises(BuildError, match="AUROC"):
        build(path, place / "x.bundle", cache=place / "cache")
    report = json.loads((place / "x.bundle.gate" / "head-classes.json").read_text())
    assert (report["labelled"], report["patients"]) == (True, 70)
    gates = {gate["name"]: gate for gate in report["gates"]}
    for name in ("auroc_loss", "class_auroc_loss"):
        assert gates[name]["value"] > gates[name]["bound"] == 0.01
        assert gates[name]["verdict"] == "refused"


class _Asked(Exception):
    """Stands for a training that would begin."""


def test_what_is_known_of_the_images_is_given_to_the_student(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = sorted(path.name for path in (place / "learn").iterdir())[:12]
    rows = [f"{name},{number // 3},{number % 2}" for number, name in enumerate(names)]
    (place / "learn.csv").write_text("\n".join(["file,patient_id,A", *rows]) + "\n", encoding="utf-8")
    said = [f"{name},no {number}" for number, name in enumerate(names)]
    (place / "said.csv").write_text("\n".join(["file,report", *reversed(said)]) + "\n", encoding="utf-8")
    given: dict[str, Any] = {}

    def asked(model: Any, findings: Any, settings: Any, images: Any, *_: Any, **__: Any) -> None:
        given.update(findings=findings, settings=settings, images=images)
        raise _Asked

    monkeypatch.setattr(run_module, "distil", asked)
    path = student_recipe(place, distil={**DISTIL, "labels": "learn.csv", "reports": "said.csv"})
    with pytest.raises(_Asked):
        build(path, place / "x.bundle", cache=place / "cache")
    images = given["images"]
    assert images.reports == [f"no {number}" for number in range(12)]
    assert images.labels.keys() == {"A"}
    assert images.labels["A"].tolist() == [number % 2 for number in range(12)]
    assert len(set(images.patients.tolist())) == 4
    assert [list(chosen) for chosen in given["findings"].values()] == [["A", "B", "C", "D"]]
    assert given["settings"] == read_settings(
        {k: v for k, v in DISTIL.items() if k not in ("images", "source")}
    )

    (place / "said.csv").write_text("\n".join(["file,report", *said[1:]]) + "\n", encoding="utf-8")
    with pytest.raises(BuildError, match="no report") as refusal:
        build(path, place / "x.bundle", cache=place / "cache")
    assert refusal.value.code == "distil.images"
    assert str(refusal.value.found) == "1 of 12 without one"


def test_prompts_are_added_beside_a_student(
    carzero_bundle: Path, learning: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LIMITS, "student", lenient())
    sections = {
        name: {**section, "images": str(learning / section["images"])}
        for name, section in (("distil", {**DISTIL, "epochs": 1}), ("gate", GATE))
    }
    made = build(
        carzero_tiny.write_recipe(tmp_path, **sections),
        tmp_path / "student.bundle",
        cache=carzero_bundle.parent / "cache",
    )
    (gated,) = made.manifest.gated
    assert (gated.consumer, gated.text) == ("onnxruntime-cpu", None)
    original = Bundle.open(carzero_bundle).manifest
    assert [each.bank.id for each in made.manifest.heads] == [each.bank.id for each in original.heads]
    (tmp_path / "site").mkdir()
    verify(made.path, site=tmp_path / "site")
    with Scorer.open(made.path, site=tmp_path / "site") as scorer:
        scorer.prompts.add("rib fracture", "There is a rib fracture.")
        scores = scorer.score(next((learning / "gate").iterdir()), modality="CR").scores
    assert np.isfinite(scores["rib fracture"].logit)


def unnamed(doc: dict[str, Any]) -> None:
    doc["gated"] = []


def test_a_student_without_its_gate_is_refused(student_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(student_bundle, tmp_path / "copy.bundle"))
    bundle_factory.edited(copy, unnamed)
    with pytest.raises(BundleError, match=r"\$\.gated"):
        Bundle.open(copy)


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no gate": ({"gate": None}, "key distil"),
    "a looser kind": ({"distil": None, "quantise": {"head": {"scheme": "weight-only"}},
                       "gate": {**GATE, "kind": "student"}}, "key gate.kind"),
    "a looser limit": ({"gate": {**GATE, "limits": {"spearman": 0.98}}}, "key gate.limits.spearman"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "key"), WRONG.values(), ids=WRONG)
def test_a_wrong_section_is_refused(tmp_path: Path, changes: dict[str, Any], key: str) -> None:
    path = convnext_tiny.write_recipe(tmp_path, **{"distil": DISTIL, "gate": GATE, **changes})
    with pytest.raises(BuildError) as refusal:
        check_sections(read_recipe_as(path, BuildRecipe), path.name, ["classes"], text=False)
    assert refusal.value.code == "recipe.invalid"
    assert key in str(refusal.value.artefact)


def test_a_quantised_student_has_the_limits_of_students_or_tighter(tmp_path: Path) -> None:
    quantise = {"image": {"scheme": "weight-only"}}
    for kind, expected in ((None, "student"), ("int8", "int8")):
        path = convnext_tiny.write_recipe(
            tmp_path, distil=DISTIL, quantise=quantise, gate={**GATE, **({"kind": kind} if kind else {})}
        )
        recipe = read_recipe_as(path, BuildRecipe)
        check_sections(recipe, path.name, ["classes"], text=False)
        assert kind_of(recipe, path.name) == expected


def test_the_recipe_in_the_documentation_is_one() -> None:
    page = (Path(__file__).parents[3] / "docs" / "distillation.md").read_text(encoding="utf-8")
    example = page.split("```yaml\n")[1].split("```")[0]
    section = msgspec.convert(yaml.safe_load(example)["distil"], DistilRecipe)
    assert section.settings.student == "vit_tiny_patch16_224"
    assert section.taken_from.labels == "learn.csv"


def test_both_heads_of_a_quantised_image_graph_are_gated(asg_both_bundle: Path, tmp_path: Path) -> None:
    write_steps(tmp_path / "gate", 24, 1)
    gate = {"images": "gate", "source": "steps"}
    quantise = {"image": {"scheme": "weight-only"}}
    path = asg_tiny.write_recipe(tmp_path, **asg_tiny.both_recipe(quantise=quantise, gate=gate))
    with pytest.raises(BuildError) as refusal:
        build(path, tmp_path / "x.bundle", cache=asg_both_bundle.parent / "cache")
    assert refusal.value.code in ("gate.failed", "gate.inconclusive")  # of 24 images no gate of flips passes
    for name, findings in (("prompts", len(asg_tiny.PROMPTS) + 1), ("tags", len(asg_tiny.TAGS))):
        report = json.loads((tmp_path / "x.bundle.gate" / f"head-{name}.json").read_text())
        assert (report["images"], len(report["findings"])) == (24, findings)
        assert report["verdict"] != "passed"
