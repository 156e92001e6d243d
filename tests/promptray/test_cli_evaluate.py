"""``promptray evaluate`` on real radiographs with the reference model, and on what people get wrong."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, cohen_kappa_score, roc_auc_score

from promptray.calibrate.tables.scores import read_scores
from promptray.runtime.scorer import Scorer
from tests.open_clip_tiny import shared_bundle
from tests.promptray.command_line import Call
from tests.promptray.labelled_samples import NAMES, PNEUMONIA, SAMPLES, write_labels, write_scores
from tests.test_import_rules import probe

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "evaluation.schema.json").read_text(encoding="utf-8"))


def test_the_report_is_that_of_the_scores(call: Call, reference_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "report"
    answer = call(
        "evaluate", reference_bundle, "--images", SAMPLES, "--labels", write_labels(tmp_path),
        "--modality", "CR", "--min-patients", 3, "-o", folder, "--html", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    (document,) = answer.documents
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert sorted(path.name for path in folder.iterdir()) == [
        "evaluation.html",
        "evaluation.json",
        "scores.csv",
    ]
    assert json.loads((folder / "evaluation.json").read_text()) == document
    assert "child of" not in "".join(path.read_text() for path in folder.iterdir())
    with Scorer.open(reference_bundle, site=None) as scorer:
        logits = {
            name: scorer.score(SAMPLES / name, modality="CR").scores["pneumonia"].logit for name in NAMES
        }
    scores = read_scores(folder / "scores.csv")
    np.testing.assert_allclose(
        scores.raw()[:, scores.keys.index("pneumonia")], list(logits.values()), atol=1e-5
    )
    (group,) = document["groups"]
    found = {finding["key"]: finding for finding in group["findings"]}
    truth = list(PNEUMONIA.values())
    column = scores.raw()[:, scores.keys.index("pneumonia")]
    assert found["pneumonia"]["auroc"]["value"] == pytest.approx(roc_auc_score(truth, column))
    assert found["pneumonia"]["auprc"]["value"] == pytest.approx(average_precision_score(truth, column))
    assert (found["viral pneumonia"]["positives"], found["pneumonia"]["positives"]) == (3, 6)
    assert document["labels"]["findings_without_labels"] == ["bacterial pneumonia", "no pneumonia"]
    assert document["scored"] == 12
    assert document["unlabelled_files"] == 13  # twelve DICOM files and the attribution
    assert document["scores"]["bundle"]["model"]["intended_use"]


def test_scores_that_were_written_are_measured_without_the_images(
    call: Call, reference_bundle: Path, tmp_path: Path
) -> None:
    labels = write_labels(tmp_path)
    common = ("--labels", labels, "--min-patients", 3, "--json")
    first = call(
        "evaluate", reference_bundle, "--images", SAMPLES, "--modality", "CR", "-o", tmp_path, *common
    )
    again = call("evaluate", tmp_path / "scores.csv", *common)
    assert again.code == 0
    assert again.documents[0]["groups"] == first.documents[0]["groups"]
    assert again.documents[0]["scores"] == {
        "name": "scores.csv",
        "bundle": None,
        "head": None,
        "backend": None,
    }


def test_the_table_for_people_says_what_it_rests_on(
    call: Call, reference_bundle: Path, tmp_path: Path
) -> None:
    text = "file,pneumonia,ward\n" + "".join(f"{name},{label},x\n" for name, label in PNEUMONIA.items())
    answer = call(
        "evaluate",
        reference_bundle,
        "--images",
        SAMPLES,
        "--labels",
        write_labels(tmp_path, text),
        "--modality",
        "CR",
    )
    assert answer.code == 0
    for said in (
        "12 images of 12",
        "best here",
        "It is optimistic",
        "ward",
        "No column patient_id",
        "1000 draws",
    ):
        assert said in " ".join(answer.out.split()), said


def test_modality_and_frame_of_a_row(call: Call, reference_bundle: Path, tmp_path: Path) -> None:
    rows = [f"{name},{label},{'CR' if label else ''}" for name, label in PNEUMONIA.items()]
    labels = write_labels(tmp_path, "\n".join(["file,pneumonia,modality", *rows]))
    answer = call("evaluate", reference_bundle, "--images", SAMPLES, "--labels", labels, "--json")
    (document,) = answer.documents
    assert {image["code"] for image in document["refused"]} == {"image.modality-undeclared"}
    assert document["scored"] == 6
    (finding,) = document["groups"][0]["findings"]
    assert (finding["status"], finding["reason"]) == (
        "inconclusive",
        "0 patients with no finding, fewer than 5",
    )


def test_columns_by_other_names_and_findings_of_the_site(
    call: Call, reference_bundle: Path, tmp_path: Path, site: Path
) -> None:
    added = call(
        "prompts", reference_bundle, "add", "pulmonary edema", "There is Pulmonary Edema", "--site", site
    )
    assert added.code == 0, added.err
    rows = [f"{name},{label},{label}" for name, label in PNEUMONIA.items()]
    labels = write_labels(tmp_path, "\n".join(["file,Edema,sick", *rows]))
    answer = call(
        "evaluate", reference_bundle, "--images", SAMPLES, "--labels", labels, "--modality", "CR",
        "--site", site, "--pack", "chestxray14", "--column", "sick=pneumonia", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    assert [finding["key"] for finding in answer.documents[0]["groups"][0]["findings"]] == [
        "pneumonia",
        "pulmonary edema",
    ]


def test_the_published_command_on_nih_files(
    call: Call, reference_bundle: Path, tmp_path: Path, site: Path
) -> None:
    """The command of docs/evaluation.md, with the samples under the NIH's names in the NIH's folders."""
    images = tmp_path / "nih"
    rows = []
    for number, (name, label) in enumerate(PNEUMONIA.items()):
        target = images / f"images_{number % 3 + 1:03d}" / "images" / f"{number:08d}_000.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(SAMPLES / name, target)
        rows.append(f"{target.name},{'Pneumonia' if label else 'No Finding'},0,{number},58,M,PA,1,1,1,1,")
    header = "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    header += "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],"
    (tmp_path / "Data_Entry_2017.csv").write_text("\n".join([header, *rows]))
    (tmp_path / "list.txt").write_text("\n".join(f"{number:08d}_000.png 0 0" for number in range(10)))
    answer = call(
        "evaluate", reference_bundle, "--images", images, "--labels", tmp_path / "Data_Entry_2017.csv",
        "--labels-format", "nih", "--only", tmp_path / "list.txt", "--modality", "DX", "--min-patients", 1,
        "--published", "carzero-chestxray14", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    (document,) = answer.documents
    (finding,) = document["groups"][0]["findings"]
    assert (finding["key"], finding["images"], finding["published_auroc"]) == ("pneumonia", 10, 0.738)
    assert document["protocol"]["clustered_by"] == "patient_id"
    assert document["unlabelled_files"] == 2


def test_the_pointing_game_is_played(call: Call, reference_bundle: Path, tmp_path: Path) -> None:
    rows = [f"{name},pneumonia,0,0,100000,100000" for name in NAMES[:4]]
    rows += [f"{name},viral pneumonia,-9,-9,1,1" for name in NAMES[:4]]
    (tmp_path / "boxes.csv").write_text("\n".join(["file,finding,x,y,w,h", *rows]))
    answer = call(
        "evaluate", reference_bundle, "--images", SAMPLES, "--labels", write_labels(tmp_path),
        "--modality", "CR", "--boxes", tmp_path / "boxes.csv", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    game = answer.documents[0]["pointing_game"]
    assert [(f["key"], f["images"], f["hits"], f["chance"]) for f in game["findings"]] == [
        ("pneumonia", 4, 4, 1.0),
        ("viral pneumonia", 4, 0, 0.0),
    ]
    assert (game["macro_rate"], game["without_score"]) == (0.5, 0)


def write_classes(folder: Path, bundle: Path) -> tuple[Path, list[str]]:
    """Write a label of one finding for each sample in turn; return the table and the findings."""
    with Scorer.open(bundle, site=None) as scorer:
        keys = [finding.key for finding in scorer.prompts]
    rows = [
        ",".join([name, *("01"[n == number % len(keys)] for n in range(len(keys)))])
        for number, name in enumerate(NAMES)
    ]
    header = ",".join(["file", *(f'"{key}"' for key in keys)])
    return write_labels(folder, "\n".join([header, *rows])), keys


def test_alternatives_are_measured_as_classes(call: Call, open_clip_bundle: Path, tmp_path: Path) -> None:
    labels, keys = write_classes(tmp_path, open_clip_bundle)
    answer = call(
        "evaluate", open_clip_bundle, "--images", SAMPLES, "--labels", labels, "--modality", "CR",
        "--min-patients", 1, "--ordinal", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    (document,) = answer.documents
    assert document["protocol"]["score"] == "softmax"
    classes = document["groups"][0]["classes"]
    assert (classes["keys"], classes["images"]) == (keys, 12)
    assert sum(map(sum, classes["confusion"])) == 12
    assert classes["accuracy"]["value"] == sum(row[n] for n, row in enumerate(classes["confusion"])) / 12


@pytest.mark.parametrize("ordinal", [True, False])
def test_a_bundle_says_itself_that_its_classes_are_a_scale(
    call: Call, shared_dir: Path, open_clip_bundle: Path, tmp_path: Path, ordinal: bool
) -> None:
    changes = {"pack": "birads-density", "relation": "ordinal", "findings": None}
    bundle = shared_bundle(shared_dir, "open-clip-pack", **changes) if ordinal else open_clip_bundle
    labels, keys = write_classes(tmp_path, bundle)
    answer = call(
        "evaluate", bundle, "--images", SAMPLES, "--labels", labels, "--modality", "CR",
        "--min-patients", 1, "--draws", 50, "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    classes = answer.documents[0]["groups"][0]["classes"]
    assert (classes["keys"], classes["ordinal"]) == (keys, ordinal)
    if ordinal:
        found, steps = np.array(classes["confusion"]), range(len(keys))
        truth = [row for row in steps for column in steps for _ in range(found[row, column])]
        predicted = [column for row in steps for column in steps for _ in range(found[row, column])]
        kappa = cohen_kappa_score(truth, predicted, weights="quadratic")
        assert classes["quadratic_kappa"]["value"] == pytest.approx(kappa)
    else:
        assert classes["quadratic_kappa"] is None


def test_larger_data_are_measured_by_source(
    call: Call, reference_bundle: Path, data_dir: Path | None
) -> None:
    if data_dir is None:
        pytest.skip("needs --data")
    images = data_dir / "cxr"
    answer = call(
        "evaluate", reference_bundle, "--images", images, "--labels", images / "labels.csv",
        "--modality", "CR", "--draws", 200, "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    (document,) = answer.documents
    groups = {group["source"]: group["findings"][0] for group in document["groups"]}
    assert set(groups) == {None, "covid-chestxray-dataset", "kermany-guangzhou", "nih-chestxray14"}
    assert groups["kermany-guangzhou"]["auroc"]["value"] > 0.9  # the model was trained on these
    assert groups["nih-chestxray14"]["status"] == "inconclusive"
    assert any("several sources" in note for note in document["notes"])


def test_lung_boxes_show_the_mechanics(
    call: Call, reference_bundle: Path, data_dir: Path | None, tmp_path: Path
) -> None:
    if data_dir is None:
        pytest.skip("needs --data")
    source = (data_dir / "cxr" / "lung_boxes.csv").read_text().splitlines()[1:]
    rows = [line.split(",") for line in source]
    boxes = [f"images/{image}.jpg,pneumonia,{x},{y},{w},{h}" for image, _, x, y, w, h in rows]
    (tmp_path / "boxes.csv").write_text("\n".join(["file,finding,x,y,w,h", *boxes]))
    answer = call(
        "evaluate", reference_bundle, "--images", data_dir / "cxr",
        "--labels", data_dir / "cxr" / "labels.csv", "--modality", "CR", "--draws", 10,
        "--boxes", tmp_path / "boxes.csv", "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    (game,) = answer.documents[0]["pointing_game"]["findings"]
    assert game["images"] == len({image for image, *_ in rows})
    assert 0.2 < game["chance"] < 0.9


def test_evaluating_needs_the_edge_install_only(tmp_path: Path) -> None:
    """On a hospital's machine, without scikit-learn, SciPy and torch."""
    scores = write_scores(tmp_path)
    done = probe(f"""
        HEAVY.remove("promptray.calibrate")
        from promptray.cli import run

        labels = {os.fspath(write_labels(tmp_path))!r}
        scores = {os.fspath(scores)!r}
        assert run(["evaluate", scores, "--labels", labels]) == 0
        assert run(["compare", scores, scores, "--labels", labels]) == 0
    """)
    assert done.returncode == 0, done.stderr
    assert "AUROC" in done.stdout


def test_the_help_shows_an_example(call: Call) -> None:
    for name in ("evaluate", "compare"):
        answer = call(name, "--help")
        assert answer.code == 0
        assert f"    promptray {name} " in answer.out
