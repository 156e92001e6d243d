"""A recipe becomes a quantised bundle that passed its gates, or nothing with the reports beside it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from promptray import BuildError, Scorer
from promptray.calibrate.gates import LIMITS, run_gates
from promptray.calibrate.pipeline import build, gate_folder
from promptray.calibrate.pipeline import gate as gate_module
from promptray.calibrate.pipeline import gated as gated_module
from promptray.calibrate.pipeline import scores as scores_module
from promptray.calibrate.pipeline.gate import Held
from promptray.calibrate.pipeline.gate_folder import GateFolder
from promptray.calibrate.pipeline.passed import require_passed
from promptray.calibrate.quantise import Quantised, quantise
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.parity import read_parity
from promptray.runtime.machine_class import machine_class
from tests.calibrate.gates.made import make
from tests.calibrate.pipeline.conftest import CALIBRATION, GATE, GOLDEN, Recipe, reference_recipe


def files_of(bundle: Path) -> dict[str, str]:
    """Hash of every file but the manifest, which holds the date, and its seal; times only as told."""
    return {
        path.relative_to(bundle).as_posix(): hashlib.sha256(_untimed(path)).hexdigest()
        for path in bundle.rglob("*")
        if path.is_file() and path.name not in ("bundle.json", "bundle.sha256")
    }


def _untimed(path: Path) -> bytes:
    """Read a file; take the numbers out of a report's notes of time, which another cache measures anew."""
    content = path.read_bytes()
    if path.suffix != ".json":
        return content
    note = rb"\"[^\"]*[0-9.]+ \([0-9.]+ to [0-9.]+\) of the time of "
    return re.sub(note, b'"TIME of the time of ', content)


def test_every_graph_is_for_this_class_of_machine_and_smaller(gated_bundle: Path) -> None:
    bundle = Bundle.open(gated_bundle)
    consumer = f"onnxruntime-cpu@{machine_class()}"
    assert [(graph.title, graph.precision, graph.consumers) for graph in bundle.manifest.graphs] == [
        ("image", "int8-qdq", [consumer]),
        ("head findings", "fp16", [consumer]),
        ("text", "int8-dynamic", [consumer]),
    ]
    gates = read_parity(bundle).gates
    assert [(each.of, each.verdict, each.kind) for each in gates] == [
        ("scores", "passed", "int8"),
        ("added prompts", "passed", "int8"),
    ]
    assert all(graph.bytes_after < 0.5 * graph.bytes_before for graph in gates[0].graphs)
    assert gates[0].measured_on.images == gates[0].patients == GATE
    calibration = bundle.manifest.provenance.calibration
    assert calibration is not None
    assert (calibration.images, calibration.source) == (CALIBRATION, "pieces of films, seed 1")


def test_it_scores_near_the_original_and_says_what_ran(gated_bundle: Path, reference_bundle: Path) -> None:
    film = sorted(GOLDEN.glob("*.png"))[0]
    with Scorer.open(gated_bundle, site=None) as small, Scorer.open(reference_bundle, site=None) as original:
        assert small.backend.precision == "image int8-qdq, head findings fp16"
        found, expected = (each.score(film, modality="DX").scores for each in (small, original))
        report = small.check_golden()
    assert 0 < abs(found["pneumonia"].logit - expected["pneumonia"].logit) < 0.1
    (head,) = report.heads
    assert head.against == "gated answers"
    assert head.score_error <= head.score_tolerance < 0.2
    assert head.golden_score_error > head.score_error


def test_prompts_added_by_the_small_text_graph_fit_no_other_bank(
    gated_bundle: Path, reference_bundle: Path
) -> None:
    small, original = (Bundle.open(path).manifest.heads[0].bank for path in (gated_bundle, reference_bundle))
    assert small.id != original.id
    added = {name: small.identity[name] for name in small.identity.keys() - original.identity.keys()}
    assert added["added_precision"] == "int8-dynamic"
    with Scorer.open(gated_bundle, site=None) as scorer:
        scorer.prompts.add("effusion", "There is effusion.")
        assert "effusion" in [finding.key for finding in scorer.prompts.of_head("findings")]


def test_a_second_build_runs_no_stage(
    cache: Path, recipe: Recipe, gated_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("a finished stage ran again")

    for module, name in (
        (scores_module, "_score"),
        (gate_module.Gates, "_hold"),
        (gated_module, "_self_test"),
    ):
        monkeypatch.setattr(module, name, never)
    monkeypatch.setattr("promptray.calibrate.image_set.ImageSet._read_all", never)
    monkeypatch.setattr("promptray.calibrate.quantise.prepare.Prepared.__init__", never)
    build(recipe(), tmp_path / "again.bundle", cache=cache)
    assert files_of(tmp_path / "again.bundle") == files_of(gated_bundle)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL here")
def test_a_killed_build_goes_on_to_the_same_bundle(
    cache: Path, recipe: Recipe, gated_bundle: Path, tmp_path: Path
) -> None:
    path, output = recipe(), tmp_path / "killed.bundle"
    for stage in ("gate", "self-test", "quantise", "scores"):
        for folder in list(cache.glob(f"{stage}-*"))[1:] or cache.glob(f"{stage}-*"):
            shutil.rmtree(folder)
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from promptray.calibrate.pipeline import build\n"
        "def kill(stage, message, fraction):\n"
        "    if stage == 'gate' and '64 of' in message:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "build(*map(Path, sys.argv[1:3]), cache=Path(sys.argv[3]), progress=kill)\n"
    )
    command = [sys.executable, "-c", script, str(path), str(output), str(cache)]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert not output.exists()
    build(path, output, cache=cache)
    assert files_of(output) == files_of(gated_bundle)


def local(bundle: Path, name: str) -> Path:
    return bundle.with_name(f"{bundle.name}.gate") / name


def test_a_passed_build_leaves_a_page_with_both_maps_beside_it(gated_bundle: Path) -> None:
    report = json.loads(local(gated_bundle, "head-findings.json").read_bytes())
    page = local(gated_bundle, "head-findings.html").read_text()
    assert report["verdict"] == "passed"
    assert len(report["disagreements"]) == 8
    assert page.count("<img") == 2 * 8
    assert "map of the original, map of the candidate" in page
    assert "burned" not in page
    assert "passed" in local(gated_bundle, "head-findings.txt").read_text()


def test_nothing_of_a_single_image_is_in_the_bundle(gated_bundle: Path) -> None:
    (gated,) = Bundle.open(gated_bundle).manifest.gated
    shown = json.loads(local(gated_bundle, "head-findings.json").read_bytes())["disagreements"]
    for each in (*gated.heads, gated.text):
        report, page = (gated_bundle / each.report).read_text(), (gated_bundle / each.page).read_text()
        assert json.loads(report)["disagreements"] == []
        assert any("single images" in note for note in json.loads(report)["notes"])
        for found in shown:
            assert found["sha256"][:12] not in report + page
            assert repr(found["original"]) not in report
        assert "<img" not in page
        assert "stroke-linecap" not in page  # what the points of a scatter have


def test_patients_that_no_table_names_are_said_not_to_be_checked(gated_bundle: Path) -> None:
    notes = read_parity(Bundle.open(gated_bundle)).notes
    assert any("'calibration'" in note and "not checked" in note for note in notes)
    report = json.loads(local(gated_bundle, "head-findings.json").read_bytes())
    assert (report["clustered_by"], report["patients"]) == ("image", GATE)
    assert set(notes) & set(report["notes"])


def test_pictures_are_on_the_page_beside_it_where_the_recipe_asks(
    cache: Path, recipe: Recipe, pieces: Path, gated_bundle: Path, tmp_path: Path
) -> None:
    section = {"images": str(pieces / "gate"), "source": "pieces of films, seed 2", "pictures": True}
    build(recipe(gate=section), tmp_path / "x.bundle", cache=cache)
    page = local(tmp_path / "x.bundle", "head-findings.html").read_text()
    assert page.count("<img") == 3 * 8
    assert "picture, map of the original, map of the candidate" in page
    assert "may be burned into the film" in page
    assert files_of(tmp_path / "x.bundle") == files_of(gated_bundle)
    assert all("picture," not in path.read_text() for path in cache.rglob("page.html"))


def test_flips_are_counted_at_the_recipe_s_thresholds(
    cache: Path, recipe: Recipe, pieces: Path, tmp_path: Path
) -> None:
    section = {"images": str(pieces / "gate"), "source": "pieces", "thresholds": {"pneumonia": 50}}
    with pytest.raises(BuildError) as refusal:  # beyond all scores: nothing could change sides
        build(recipe(gate=section), tmp_path / "x.bundle", cache=cache)
    assert refusal.value.code == "gate.inconclusive"
    report = json.loads(local(tmp_path / "x.bundle", "head-findings.json").read_bytes())
    for found in report["findings"]:
        stated = found["key"] == "pneumonia"
        assert (found["flips"]["threshold"] == 50, found["flips"]["chosen"] == "stored") == (stated, stated)
    assert any("stored thresholds: pneumonia 50" in note for note in report["notes"])


def clipped(content: bytes, scheme: Any, feeds: Any) -> Quantised:
    """Quantise with ranges far too small: what a broken calibration does."""
    made = quantise(content, scheme, feeds)
    model = onnx.load_from_string(made.content)
    scales = {node.input[1] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    for tensor in model.graph.initializer:
        if tensor.name in scales:
            values = numpy_helper.to_array(tensor) / np.float32(40)
            tensor.CopyFrom(numpy_helper.from_array(np.asarray(values, np.float32), tensor.name))
    return Quantised(bytes(model.SerializeToString()), made.report)


IMAGE_ONLY = {"image": {"scheme": "int8-qdq"}}


def with_pieces(pieces: Path, schemes: dict[str, Any]) -> dict[str, Any]:
    return {**schemes, "calibration": {"images": str(pieces / "calibration"), "source": "pieces"}}


def few(tmp_path: Path, pieces: Path, count: int) -> dict[str, Any]:
    """A section 'gate' of a few images, one of them no image."""
    folder = tmp_path / "few"
    folder.mkdir()
    for path in sorted((pieces / "gate").iterdir())[:count]:
        shutil.copy(path, folder)
    (folder / "notes.txt").write_text("no image")
    return {"images": "few", "source": "a few pieces"}


def test_a_broken_quantisation_is_refused_and_not_written(
    cache: Path, recipe: Recipe, pieces: Path, tmp_path: Path
) -> None:
    output = tmp_path / "broken.bundle"
    path = recipe(quantise=with_pieces(pieces, IMAGE_ONLY), gate=few(tmp_path, pieces, 60))
    with pytest.raises(BuildError, match="REFUSED") as refusal:
        build(path, output, cache=cache, change=clipped)
    assert refusal.value.code == "gate.failed"
    assert not output.exists()
    report = json.loads((tmp_path / "broken.bundle.gate" / "head-findings.json").read_text())
    assert report["verdict"] == "refused"
    assert (tmp_path / "broken.bundle.gate" / "head-findings.html").exists()


def test_too_few_images_are_inconclusive_and_say_how_many_would_do(
    cache: Path, recipe: Recipe, pieces: Path, tmp_path: Path
) -> None:
    output = tmp_path / "few.bundle"
    path = recipe(quantise=with_pieces(pieces, IMAGE_ONLY), gate=few(tmp_path, pieces, 60))
    with pytest.raises(BuildError, match="INCONCLUSIVE") as refusal:
        build(path, output, cache=cache)
    assert refusal.value.code == "gate.inconclusive"
    assert "patients would settle it" in str(refusal.value.cure)
    assert not output.exists()
    report = json.loads((tmp_path / "few.bundle.gate" / "head-findings.json").read_text())
    assert report["images"] == 60
    assert any("refused 1 images" in note and "image.format" in note for note in report["notes"])


def test_images_may_not_be_in_both_sections(
    cache: Path, recipe: Recipe, pieces: Path, tmp_path: Path
) -> None:
    with pytest.raises(BuildError) as refusal:
        build(recipe(gate={"images": str(pieces), "source": "all"}), tmp_path / "x.bundle", cache=cache)
    assert refusal.value.code == "gate.images"
    assert str(refusal.value.found).startswith(f"{CALIBRATION} of")


def test_patients_may_not_be_in_both_sections(
    cache: Path, recipe: Recipe, pieces: Path, tmp_path: Path
) -> None:
    sections = {}
    for name, patients in (("gate", ["p", "q", "r"]), ("calibration", ["s", " P"])):
        rows = [f"{number:04}.png,{patient}" for number, patient in enumerate(patients)]
        (tmp_path / f"{name}.csv").write_text("\n".join(["file,patient_id", *rows]) + "\n")
        sections[name] = {"images": str(pieces / name), "labels": f"{name}.csv", "source": "pieces"}
    quantise = {**IMAGE_ONLY, "calibration": sections["calibration"]}
    with pytest.raises(BuildError, match="patients that the model is quantised with") as refusal:
        build(recipe(quantise=quantise, gate=sections["gate"]), tmp_path / "x.bundle", cache=cache)
    assert refusal.value.code == "gate.images"
    assert str(refusal.value.found) == "0 of 3 pictures, as the network sees them; 1 of 3 patients"
    assert "line" in str(refusal.value.artefact)


def test_a_place_where_no_reports_can_be_is_refused_before_the_work(recipe: Recipe, tmp_path: Path) -> None:
    local(tmp_path / "x.bundle", "").write_text("a file of the house")
    with pytest.raises(BuildError) as refusal:
        build(recipe(), tmp_path / "x.bundle", cache=tmp_path / "cache")
    assert refusal.value.code == "output.exists"
    assert not (tmp_path / "cache").exists()


def test_a_verdict_that_cannot_be_written_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = make(images=40)
    report = run_gates(data, LIMITS["int8"], draws=20)
    held = Held("head-x", "onnxruntime-cpu", "x", "scores", report, "page", b"", b"")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gate_folder, "write_new", full)
    with pytest.raises(BuildError, match="INCONCLUSIVE") as refusal:
        require_passed([held], GateFolder(tmp_path / "x.bundle"), "x", "cure")
    assert refusal.value.code == "output.unwritable"


GATE_SECTION = {"images": "gate", "source": "pieces"}
WRONG: dict[str, tuple[dict[str, Any], str, str]] = {
    "quantised without a gate": ({"gate": None}, "key quantise", "a gate"),
    "gated without a change": ({"quantise": None}, "key gate", "nothing to gate"),
    "nothing to quantise": ({"quantise": {}}, "key quantise", "nothing is to be quantised"),
    "ranges without images": ({"quantise": IMAGE_ONLY}, "key quantise", "names none"),
    "a scheme that no backend runs": (
        {"quantise": {"image": {"scheme": "fp8-qdq"}}}, "key quantise", "run on no CPU"
    ),
    "a head that is not there": (
        {"quantise": {"heads": {"tags": {"scheme": "int8-dynamic"}}}},
        "key quantise.heads.tags", "no such head",
    ),
    "a looser limit": (
        {"gate": {**GATE_SECTION, "limits": {"flips": 0.05}}}, "key gate.limits.flips", "looser"
    ),
    "a looser rank correlation": (
        {"gate": {**GATE_SECTION, "limits": {"spearman": 0.9}}}, "key gate.limits.spearman", "looser"
    ),
    "a looser kind": (
        {"quantise": {"text": {"scheme": "fp16"}}, "gate": {**GATE_SECTION, "kind": "int8"}},
        "key gate.kind", "looser",
    ),
    "an unknown scheme": ({"quantise": {"image": {"scheme": "int7"}}}, "key quantise.image.scheme", "int7"),
    "an unknown key": ({"gate": {**GATE_SECTION, "force": True}}, "key gate.force", "unknown key"),
}  # fmt: skip


@pytest.mark.parametrize(("changes", "key", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_section_is_refused_by_its_line(
    cache: Path, recipe: Recipe, tmp_path: Path, changes: dict[str, Any], key: str, words: str
) -> None:
    with pytest.raises(BuildError, match=words) as refusal:
        build(recipe(**changes), tmp_path / "x.bundle", cache=cache)
    assert refusal.value.code == "recipe.invalid"
    assert key in str(refusal.value.artefact)
    assert "line" in str(refusal.value.artefact)


def test_a_recipe_without_the_sections_is_the_fp32_build(
    cache: Path, tmp_path: Path, pieces: Path, reference_bundle: Path
) -> None:
    path = reference_recipe(tmp_path, pieces, quantise=None, gate=None)
    made = build(path, tmp_path / "plain.bundle", cache=cache)
    assert files_of(made.path) == files_of(reference_bundle)
    assert made.manifest.gated == []
