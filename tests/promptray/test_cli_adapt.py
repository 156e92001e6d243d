"""``promptray adapt`` as people call it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

from promptray.runtime.scorer import Scorer
from tests.calibrate.adapt.made_site import CLASSES, convnext_recipe, write_images, write_table
from tests.promptray.command_line import Call

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "adaptation.schema.json").read_text(encoding="utf-8"))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Folder with thirty patients' images, their labels, and the tiny ConvNeXt's recipe."""
    rows = write_images(tmp_path / "images", 30, per_patient=1)
    write_table(tmp_path / "labels.csv", rows)
    convnext_recipe(tmp_path, groups=None)
    return tmp_path


def arguments(site: Path, output: str, shared_dir: Path, *more: object) -> list[object]:
    return [
        "adapt",
        site / "recipe.yaml",
        *("--images", site / "images", "--labels", site / "labels.csv", "--column", "density"),
        *("--modality", "MG", "--draws", 50, "--cache", shared_dir / "cache", "-o", site / output),
        *more,
    ]


def test_one_command_gives_a_bundle_and_a_report_by_the_schema(
    call: Call, site: Path, shared_dir: Path
) -> None:
    answer = call(*arguments(site, "out", shared_dir, "--stages", "probe", "--json"))
    assert answer.code == 0
    (document,) = answer.documents
    jsonschema.validate(document, SCHEMA)
    assert document == json.loads((site / "out" / "report.json").read_text(encoding="utf-8"))
    assert "probe:" in answer.err  # progress
    with Scorer.open(site / "out" / "probe.bundle") as scorer:
        result = scorer.score(site / "images" / "p000-0.png", modality="MG")
    assert list(result.scores) == list(CLASSES)
    again = call(*arguments(site, "out", shared_dir, "--stages", "probe"))
    assert again.code == 1
    assert "[output.exists]" in again.err


def test_the_scores_of_a_stage_are_evaluated_with_the_labels_beside_them(
    call: Call, site: Path, shared_dir: Path
) -> None:
    out = site / "out"
    said = call(*arguments(site, "out", shared_dir, "--stages", "probe", "--json")).documents[0]
    labels = ("--labels", out / "test.labels.csv", "--draws", 50, "--min-patients", 1, "--json")
    answer = call("evaluate", out / "probe.scores.csv", *labels)
    assert answer.code == 0
    (group,) = answer.documents[0]["groups"]
    own = {finding["key"]: finding["auroc"]["value"] for finding in group["findings"]}
    numbers = said["stages"][0]["numbers"]
    assert own == {key: pytest.approx(numbers[f"AUROC {key}"]["value"]) for key in CLASSES}
    assert {path.name for path in out.glob("*.labels.csv")} == {"train.labels.csv", "test.labels.csv"}


def test_a_value_of_the_table_may_hold_an_equals_sign(call: Call, site: Path, shared_dir: Path) -> None:
    labels = site / "labels.csv"
    labels.write_text(labels.read_text().replace(",dark,", ",level=1,"))
    given = arguments(site, "out", shared_dir, "--stages", "probe", "--class", "level=1=dark", "--json")
    (document,) = call(*given).documents
    assert sum(part["classes"]["dark"] for part in document["division"]["parts"]) == 10


def test_people_get_tables_reasons_and_notes(call: Call, site: Path, shared_dir: Path) -> None:
    answer = call(*arguments(site, "out", shared_dir, "--epochs", 1, "--batch-size", 8))
    assert answer.code == 0
    for said in ("fine-tune less probe", "quadratic kappa", "report"):
        assert said in answer.out, said
    assert "Note: There is no zero-shot stage" in answer.err
    assert "Note: Images are kept together by the column patient_id (patient)." in answer.err
    assert "6 patients in the test part" in answer.out
    assert "fewer than 10" in answer.out
    assert "Nothing is recommended." in answer.out
    assert "secret-" not in answer.out + answer.err


@pytest.mark.skipif(os.name != "posix", reason="a kill that cannot be caught is POSIX's")
def test_a_killed_run_goes_on(call: Call, site: Path, shared_dir: Path) -> None:
    options = ("--epochs", 4, "--batch-size", 4, "--patience", 4)
    command = [sys.executable, "-m", "promptray", *map(str, arguments(site, "killed", shared_dir, *options))]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    state = site / "killed" / "fine-tune.state.safetensors"
    deadline = time.monotonic() + 300
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (site / "killed" / "report.json").exists()
    assert call(*arguments(site, "killed", shared_dir, *options)).code == 0
    assert call(*arguments(site, "whole", shared_dir, *options)).code == 0
    for name in ("features.safetensors", "probe/tuned.safetensors", "fine-tune/tuned.safetensors"):
        assert (site / "killed" / name).read_bytes() == (site / "whole" / name).read_bytes(), name
    assert not list((site / "killed").glob(".*.partial"))


@pytest.mark.parametrize(
    "wrong",
    [
        ["--stages", "probe,finetune"],
        ["--stages", "probe,probe"],
        ["--class", "F"],
        ["--class", "F=dark", "--class", "F=grey"],
        ["--test", "0.9", "--val", "0.2"],
        ["--epochs", "0"],
        ["--learning-rate", "0"],
    ],
)
def test_wrong_usage_ends_with_2(call: Call, site: Path, shared_dir: Path, wrong: list[str]) -> None:
    assert call(*arguments(site, "out", shared_dir, *wrong)).code == 2
    assert not (site / "out").exists()


def test_refusals_are_documents_too(call: Call, site: Path, shared_dir: Path) -> None:
    answer = call(*arguments(site, "out", shared_dir, "--split", "density", "--json"))
    assert answer.code == 1
    (document,) = answer.documents
    assert document["error"]["code"] == "table.format"
    answer = call(*arguments(site, "out", shared_dir, "--stages", "zero-shot", "--json"))
    assert answer.documents[0]["error"]["code"] == "adapt.recipe"


def test_help_does_not_wait_for_torch() -> None:
    script = (
        "import sys; from promptray.cli import run; run(['adapt', '--help']); "
        "print(sorted({'torch', 'sklearn', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")
    assert "promptray adapt density.yaml" in done.stdout


@pytest.mark.parametrize(
    "option",
    [
        ("--test", "nan"), ("--val", "nan"), ("--learning-rate", "nan"), ("--learning-rate", "inf"),
        ("--label-smoothing", "nan"), ("--seed", 2**32),
    ],
)  # fmt: skip
def test_a_number_out_of_range_is_wrong_usage(
    call: Call, site: Path, shared_dir: Path, option: tuple[str, object]
) -> None:
    answer = call(*arguments(site, "out", shared_dir, *option))
    assert answer.code == 2
    assert option[0] in answer.err
    assert not (site / "out").exists()
