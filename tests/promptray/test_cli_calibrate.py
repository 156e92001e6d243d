"""``promptray calibrate``: what is fitted is stored, applied by every score, and refused where it must be."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression

from promptray.runtime.bundle import Bundle
from promptray.runtime.scorer import Scorer
from promptray.runtime.site import Site
from promptray.runtime.site_calibration import site_calibrations
from tests.labelled_images import Labelled, labelled, write_table
from tests.promptray.command_line import Answer, Call
from tests.test_import_rules import probe

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "calibration.schema.json").read_text(encoding="utf-8")
)
Calibrate = Callable[..., Answer]


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    return labelled(tmp_path_factory.mktemp("labelled"))


@pytest.fixture
def calibrate(call: Call, films: Labelled, site: Path) -> Calibrate:
    def run(*more: object, labels: Path = films.labels) -> Answer:
        return call(
            "calibrate", films.bundle, labels, "--images", films.images, "--modality", "DX",
            "--site", site, "--draws", 50, *more,
        )  # fmt: skip

    return run


def entries(films: Labelled, site: Path) -> list[str]:
    return [each.key for each in Site.open(site, Bundle.open(films.bundle).hash).entries("calibration")]


def table(films: Labelled, folder: Path, **columns: Any) -> Path:
    return write_table(folder / "own.csv", films.names, columns)


def test_what_is_stored_is_what_scores_get(
    calibrate: Calibrate, films: Labelled, site: Path, tmp_path: Path
) -> None:
    answer = calibrate("--json", "--report", tmp_path / "page.html")
    assert answer.code == 0, answer.err
    (document,) = answer.documents
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    assert document["stored"]
    assert document["scored"] == len(films.names)
    assert "person" not in answer.out + (tmp_path / "page.html").read_text()
    assert (tmp_path / "page.html").read_text().count("<svg") == 2
    assert entries(films, site) == films.keys
    with Scorer.open(films.bundle, site=site) as scorer:
        results = [scorer.score(films.images / name, modality="DX") for name in films.names[:20]]
        thresholds = scorer.prompts.state.thresholds_of("chest")
    for column, (key, found) in enumerate(zip(films.keys, document["findings"], strict=True)):
        logits, truth = films.logits[:, column], films.truth[:, column]
        # Platt's own targets: each image counts as p of its class and 1 - p of the other.
        p, q = truth.sum(), (~truth).sum()
        weights = np.where(truth, (p + 1) / (p + 2), 1 / (q + 2))
        reference = LogisticRegression(C=np.inf, solver="lbfgs", tol=1e-12, max_iter=10_000).fit(
            np.tile(logits, 2)[:, None], np.repeat([1, 0], len(logits)),
            sample_weight=np.concatenate([weights, 1 - weights]),
        )  # fmt: skip
        point = found["operating_point"]
        # 95 % of the positives are flagged, and one logit higher they would not be.
        assert (logits[truth] >= point["threshold"]).mean() >= 0.95
        higher = logits[logits > point["threshold"]].min()
        assert (logits[truth] > higher).mean() < 0.95
        assert thresholds[key] == point["threshold"]
        for result, logit in zip(results, logits, strict=False):
            score = result.scores[key]
            expected = reference.predict_proba([[logit]])[0, 1]
            assert score.probability == pytest.approx(expected, abs=2e-4)
            assert score.flag == (logit >= point["threshold"])
            assert score.threshold == point["threshold"]
            rests = score.calibration
            assert rests is not None
            assert (rests.source, rests.method, rests.images, rests.patients) == ("site", "platt", 300, 150)
            assert rests.prevalence == pytest.approx(truth.mean())
            assert (rests.rule, rests.target) == ("sensitivity-first", 0.95)


def test_the_tables_for_people(calibrate: Calibrate, call: Call, films: Labelled, site: Path) -> None:
    said = calibrate().out
    for words in ("Brier", "ECE (by chance)", "prevalence", "2 findings were calibrated. Stored."):
        assert words in said, words
    image = films.images / films.names[0]
    shown = call("score", films.bundle, image, "--modality", "DX", "--site", site).out
    assert "p=0." in shown
    assert "this site's threshold" in " ".join(shown.split())
    assert "300 images, platt" in call("inspect", films.bundle, "--site", site).out
    (found,) = call("inspect", films.bundle, "--site", site, "--json").documents
    (stored,) = call("calibrate", films.bundle, "--list", "--site", site, "--json").documents
    assert found["site"]["calibrations"] == stored["calibrations"]
    assert [each["calibration"]["finding"] for each in stored["calibrations"]] == films.keys
    assert "300 (150)" in call("calibrate", films.bundle, "--list", "--site", site).out


def test_without_a_calibration_there_is_no_probability(call: Call, films: Labelled, site: Path) -> None:
    image = films.images / films.names[0]
    (document,) = call("score", films.bundle, image, "--modality", "DX", "--site", site, "--json").documents
    for finding in document["findings"]:
        missing = ("probability", "threshold", "flag", "calibration")
        assert [finding["score"][name] for name in missing] == [None] * 4


def test_a_finding_with_too_few_is_refused_alone(
    calibrate: Calibrate, films: Labelled, site: Path, tmp_path: Path
) -> None:
    first, second = films.keys
    few: list[object] = [*[1] * 20, *[0] * 280]
    labels = table(films, tmp_path, **{first: films.truth[:, 0].astype(int).tolist(), second: few})
    answer = calibrate("--json", labels=labels)
    assert answer.code == 1
    (document,) = answer.documents
    good, bad = document["findings"]
    assert good["refused"] is None
    assert bad["calibration"] is None
    assert bad["refused"]["code"] == "calibration.too-few"
    assert bad["refused"]["expected"] == "50 patients with the finding and 50 without"
    assert bad["refused"]["found"] == "10 and 140"
    assert "750 patients" in bad["refused"]["cure"]
    assert entries(films, site) == [first]
    assert "calibration.too-few" in calibrate(labels=labels).out


def test_where_no_finding_can_be_calibrated_no_image_is_scored(
    calibrate: Calibrate, films: Labelled, site: Path, tmp_path: Path
) -> None:
    labels = table(films, tmp_path, **{films.keys[0]: [*[1] * 20, *[0] * 280]})
    answer = calibrate("--json", labels=labels)
    assert answer.code == 1
    assert (answer.documents[0]["scored"], answer.documents[0]["stored"]) == (0, False)
    assert list(site.iterdir()) == []


def test_scores_that_do_not_rank_the_labels_are_refused(
    calibrate: Calibrate, films: Labelled, site: Path, tmp_path: Path
) -> None:
    upside_down = (~films.truth[:, 0]).astype(int).tolist()
    answer = calibrate("--json", labels=table(films, tmp_path, **{films.keys[0]: upside_down}))
    assert answer.code == 1
    assert answer.documents[0]["findings"][0]["refused"]["code"] == "calibration.unfit"
    assert entries(films, site) == []


def test_a_finding_that_is_asked_for_and_has_no_labels_is_an_error(
    calibrate: Calibrate, films: Labelled, tmp_path: Path
) -> None:
    first, second = films.keys
    labels = table(films, tmp_path, **{first: films.truth[:, 0].astype(int).tolist()})
    answer = calibrate("--finding", second, labels=labels)
    assert answer.code == 1
    assert "table.finding" in answer.err
    assert second in answer.err


def test_a_refused_finding_keeps_its_earlier_calibration_and_the_report_says_so(
    calibrate: Calibrate, films: Labelled, site: Path, tmp_path: Path
) -> None:
    calibrate("--finding", films.keys[0])
    upside_down = table(films, tmp_path, **{films.keys[0]: (~films.truth[:, 0]).astype(int).tolist()})
    answer = calibrate("--json", labels=upside_down)
    assert answer.code == 1
    assert any(f"{films.keys[0]} keeps its calibration" in note for note in answer.documents[0]["notes"])
    assert entries(films, site) == films.keys[:1]
    assert "keeps" not in calibrate("--dry-run", labels=upside_down).out


def test_a_curve_that_does_not_fit_is_pointed_out(
    calibrate: Calibrate, films: Labelled, tmp_path: Path
) -> None:
    """Labels that turn at a logit far from 0: no temperature can move its one half there."""
    logits = films.logits[:, 0]
    labels = table(films, tmp_path, **{films.keys[0]: (logits > np.median(logits)).astype(int).tolist()})
    said = calibrate("--method", "temperature", "--dry-run", labels=labels).out
    assert f"probabilities of {films.keys[0]} are further off than chance" in " ".join(said.split())
    (document,) = calibrate("--dry-run", "--json").documents
    assert document["notes"] == []


def test_a_second_run_stores_the_same(calibrate: Calibrate, films: Labelled, site: Path) -> None:
    stored = []
    for _ in range(2):
        assert calibrate().code == 0
        opened = Bundle.open(films.bundle)
        found = site_calibrations(Site.open(site, opened.hash), opened.manifest).values()
        # But for the day, which may turn in between.
        stored.append([msgspec.to_builtins(each.content) for each in found])
        for each in stored[-1]:
            each["calibration"]["date"] = each["operating_point"]["date"] = None
    assert stored[0] == stored[1]


def test_a_dry_run_stores_nothing(calibrate: Calibrate, site: Path) -> None:
    answer = calibrate("--dry-run", "--json", "--method", "temperature", "--operating-point", "none")
    assert answer.code == 0
    (document,) = answer.documents
    assert not document["stored"]
    assert [each["operating_point"] for each in document["findings"]] == [None, None]
    assert list(site.iterdir()) == []


def test_a_new_calibration_takes_the_place_of_the_old_one(
    calibrate: Calibrate, films: Labelled, site: Path
) -> None:
    calibrate()
    again = calibrate(
        "--finding", films.keys[0], "--operating-point", "specificity-first", "--target", 0.9, "--json"
    )
    assert again.code == 0
    assert [each["key"] for each in again.documents[0]["findings"]] == [films.keys[0]]
    assert sorted(entries(films, site)) == films.keys
    with Scorer.open(films.bundle, site=site) as scorer:
        scores = scorer.score(films.images / films.names[0], modality="DX").scores
    rules = [scores[key].calibration.rule for key in films.keys]  # type: ignore[union-attr]
    assert rules == ["specificity-first", "sensitivity-first"]


def test_listing_and_removing_need_the_edge_install_alone(
    calibrate: Calibrate, films: Labelled, site: Path
) -> None:
    calibrate()
    done = probe(f"""
        sys.modules["sklearn"] = None
        HEAVY.remove("promptray.calibrate")
        import importlib.util
        importlib.util.find_spec = lambda name: None
        from promptray.cli import run
        common = ["calibrate", {str(films.bundle)!r}, "--site", {str(site)!r}]
        assert run([*common, "--list"]) == 0
        assert run([*common, "--remove", {films.keys[0]!r}]) == 0
        assert run([*common, {str(films.labels)!r}, "--images", {str(films.images)!r}]) == 1
    """)
    assert done.returncode == 0, done.stderr
    assert "extra.missing" in done.stderr
    assert entries(films, site) == films.keys[1:]


def test_what_is_removed_is_gone(calibrate: Calibrate, call: Call, films: Labelled, site: Path) -> None:
    calibrate()
    assert call("calibrate", films.bundle, "--remove", films.keys[0], "--site", site).code == 0
    assert entries(films, site) == films.keys[1:]
    again = call("calibrate", films.bundle, "--remove", films.keys[0], "--site", site)
    assert again.code == 1
    assert "prompt.unknown" in again.err


def test_images_that_are_refused_leave_the_rest_and_the_exit_code_says_so(
    calibrate: Calibrate, films: Labelled, tmp_path: Path
) -> None:
    films_ = tmp_path / "films"
    shutil.copytree(films.images, films_)
    (films_ / films.names[0]).write_bytes(b"no image")
    answer = calibrate("--images", films_, "--json", "--report", tmp_path / "page.html")
    assert answer.code == 1
    (document,) = answer.documents
    assert document["stored"]
    assert document["refused"] == [{"image": "line 2", "code": "image.format"}]
    for said in (answer.out, (tmp_path / "page.html").read_text(), calibrate("--images", films_).out):
        assert "line 2" in said
        assert films.names[0] not in said
    assert document["findings"][0]["calibration"]["calibration"]["images"] == 299


@pytest.mark.parametrize("named", [True, False])
def test_copies_under_several_ids_are_one_patients(
    calibrate: Calibrate, films: Labelled, tmp_path: Path, named: bool
) -> None:
    """A picture that was exported twice, in another file, under another id."""
    copies = tmp_path / "films"
    shutil.copytree(films.images, copies)
    again = films.names[:100]
    for name in again:
        Image.open(films.images / name).save(copies / f"again-{name}", compress_level=1)
    assert (copies / f"again-{again[0]}").read_bytes() != (copies / again[0]).read_bytes()
    values = films.truth.astype(int)[[*range(len(films.names)), *range(100)]]
    names = [*films.names, *(f"again-{name}" for name in again)]
    labels = write_table(tmp_path / "own.csv", names, dict(zip(films.keys, values.T.tolist(), strict=True)))
    if not named:
        labels.write_text(labels.read_text().replace("patient_id", "somebody"))
    arguments = ("--images", copies, "--dry-run")
    answer = calibrate(*arguments, "--json", labels=labels)
    assert answer.code == 0, answer.err
    (document,) = answer.documents
    # Two images a patient: the copies of 100 are of 50 more.
    assert document["united"] == (50 if named else 100)
    made = document["findings"][0]["calibration"]
    assert made["calibration"]["images"] == 400
    assert made["calibration"]["patients"] == (150 if named else None)
    assert (made["positive_patients"] + made["negative_patients"]) < (300 if named else 301)
    said = f"{50 if named else 100} {'patients' if named else 'images'} count as one patient with others"
    assert said in calibrate(*arguments, labels=labels).out


def test_a_report_that_is_there_is_not_written_over(calibrate: Calibrate, site: Path, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("mine")
    answer = calibrate("--report", tmp_path / "page.html")
    assert answer.code == 1
    assert "output.exists" in answer.err
    assert (tmp_path / "page.html").read_text() == "mine"
    assert list(site.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["labels.csv", "--list"],
        ["--list", "--remove", "x"],
        ["labels.csv"],
        ["labels.csv", "--target", 1],
    ],
    ids=str,
)
def test_wrong_usage(call: Call, films: Labelled, arguments: list[object]) -> None:
    assert call("calibrate", films.bundle, *arguments).code == 2


def test_alternatives_are_refused_before_an_image_is_read(
    call: Call, open_clip_bundle: Path, films: Labelled, site: Path
) -> None:
    answer = call("calibrate", open_clip_bundle, films.labels, "--images", films.images, "--site", site)
    assert answer.code == 1
    assert "calibration.alternatives" in answer.err


def test_evaluate_measures_at_the_stored_threshold(
    calibrate: Calibrate, call: Call, films: Labelled, site: Path
) -> None:
    calibrate()
    answer = call(
        "evaluate", films.bundle, "--labels", films.labels, "--images", films.images, "--modality", "DX",
        "--site", site, "--draws", 50, "--json",
    )  # fmt: skip
    assert answer.code == 0, answer.err
    (group,) = answer.documents[0]["groups"]
    assert {finding["f1"]["chosen"] for finding in group["findings"]} == {"stored"}
    assert all(finding["f1"]["recall"] >= 0.95 for finding in group["findings"])


DIES = """
import os, sys
from promptray.cli import run
from promptray.runtime import site

step, after, *arguments = sys.argv[1:]
real, done = getattr(site, step), []

def dies(*given):
    if len(done) == int(after):
        os._exit(9)
    done.append(given)
    return real(*given)

setattr(site, step, dies)
run(arguments)
"""


@pytest.mark.parametrize(("step", "after"), [("store_payload", 1), ("store_index", 0)])
def test_killed_while_storing_there_is_the_old_state(
    calibrate: Calibrate, films: Labelled, site: Path, step: str, after: int
) -> None:
    """The process dies before the second payload, or with both written and before the index."""
    calibrate("--finding", films.keys[0])
    arguments = [
        "calibrate", films.bundle, films.labels, "--images", films.images, "--modality", "DX",
        "--site", site, "--draws", 50, "--method", "temperature",
    ]  # fmt: skip
    command = [sys.executable, "-c", DIES, step, str(after), *map(str, arguments)]
    done = subprocess.run(command, env=os.environ, capture_output=True, check=False)
    assert done.returncode == 9, done.stderr
    assert entries(films, site) == films.keys[:1]
    with Scorer.open(films.bundle, site=site) as scorer:
        scores = scorer.score(films.images / films.names[0], modality="DX").scores
    assert scores[films.keys[0]].calibration.method == "platt"  # type: ignore[union-attr]
    assert calibrate().code == 0  # and the next writer carries on
    assert sorted(entries(films, site)) == films.keys
