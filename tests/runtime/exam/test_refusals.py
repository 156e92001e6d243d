"""What must not become a score of an examination."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pydicom
import pytest

from promptray import BundleError, Scorer
from promptray.runtime.bundle import Bundle
from tests import dicom_factory
from tests.bundle_factory import edited
from tests.exam_scoring import refused, ruled, values
from tests.examinations import (
    PICTURES,
    VIEWS,
    mammogram,
    pixels,
    study,
    with_rule,
    write_study,
)


def test_a_single_source_is_no_list(scorer: Scorer, tmp_path: Path) -> None:
    """Its letters, bytes, lines, tags or rows are no images."""
    path = write_study(tmp_path, VIEWS[:1])[0]
    with path.open("rb") as file:
        for source in (str(path), path, path.read_bytes(), file, pydicom.dcmread(path), pixels(0)):
            with pytest.raises(TypeError, match="give a list"):
                scorer.score_exam(source)  # type: ignore[arg-type]
            with pytest.raises(TypeError, match="give a list"):
                next(scorer.score_many(source))  # type: ignore[arg-type]
    assert scorer.score_exam(each for each in [path]).missing_views == VIEWS[1:]


def test_pictures_without_a_study_are_noted_in_strict_mode_too(bundle: Path) -> None:
    with Scorer.open(bundle, site=None, strict=True) as strict:
        result = strict.score_exam(PICTURES[:2], views=["L CC", "R CC"], modality="MG")
    assert [notice.code for notice in result.notices] == ["study-absent"]


def test_images_of_different_studies_are_refused(scorer: Scorer) -> None:
    images = study()
    images[2] = mammogram("R CC", 2, StudyInstanceUID="1.2.3.5")
    refused(scorer, "exam.mixed", images)
    images[2] = mammogram("R ML", 2, StudyInstanceUID="1.2.3.5")
    refused(scorer, "exam.mixed", images)


def test_one_image_twice_is_refused(scorer: Scorer) -> None:
    error = refused(scorer, "exam.mixed", [*study(), study()[0]])
    assert error.artefact == "image 1, bytes and image 5, bytes"
    refused(scorer, "exam.mixed", [*study(), mammogram("R ML", 0)])


def test_one_picture_under_two_names_is_refused(scorer: Scorer) -> None:
    """An archive gave it a number twice, or a file was taken for another view."""
    for label in ("R CC", "L CC"):
        copy = mammogram(label, 0, SOPInstanceUID="1.2.3.4.99")
        error = refused(scorer, "exam.mixed", [study()[0], copy])
        assert error.artefact == f"image 1, bytes (L CC) and image 2, bytes ({label})"
    views = ["L CC", "R CC"]
    refused(scorer, "exam.mixed", [PICTURES[0], PICTURES[0]], views=views, modality="MG")


def test_an_absent_study_is_noted_and_refused_in_strict_mode(bundle: Path, scorer: Scorer) -> None:
    images = study()
    images[3] = mammogram("R MLO", 3, StudyInstanceUID=None)
    result = scorer.score_exam(images)
    assert [notice.code for notice in result.notices] == ["study-absent"]
    assert result.document.study_instance_uid == "1.2.3.4"
    assert scorer.score_exam([images[3]]).notices == ()
    with Scorer.open(bundle, site=None, strict=True) as strict:
        assert strict.score_exam(study()).examination == scorer.score_exam(study()).examination
        refused(strict, "image.tag-missing", images)


def test_a_bundle_without_rule_pools_nothing(bundle: Path, tmp_path: Path) -> None:
    with ruled(bundle, tmp_path, rule=None) as ruleless:
        assert "examination" in refused(ruleless, "exam.no-rule", study()).cure
        assert ruleless.score(study()[0]).summary is not None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("views", ["L CC", "L QQ"]), ("views", []), ("views", ["L CC", "MLO"]), ("over_views", "median"),
        ("over_sides", "denser"), ("require_all", "yes"), ("weights", [1]),
    ],
)  # fmt: skip
def test_a_tampered_rule_is_refused(field: str, value: object, bundle: Path, tmp_path: Path) -> None:
    copy = with_rule(bundle, tmp_path)
    edited(copy, lambda document: document["examination"].__setitem__(field, value))
    with pytest.raises(BundleError) as refusal:
        Bundle.open(copy)
    assert refusal.value.code == "bundle.format"
    assert "examination" in str(refusal.value)


def test_a_rule_changed_without_seal_is_refused(bundle: Path, tmp_path: Path) -> None:
    path = with_rule(bundle, tmp_path) / "bundle.json"
    path.write_bytes(path.read_bytes().replace(b'"over_sides": "max"', b'"over_sides": "mean"'))
    with pytest.raises(BundleError) as refusal:
        Bundle.open(path.parent)
    assert refusal.value.code == "bundle.seal"


def test_findings_that_change_on_the_way_have_no_pooled_score(
    carzero_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rule = {"views": ["PA", "LL"], "over_views": "mean", "over_sides": "none"}
    films = [
        dicom_factory.file(pixels(n), ViewPosition=v, SOPInstanceUID=None) for n, v in enumerate(("PA", "LL"))
    ]
    with ruled(carzero_bundle, tmp_path, **rule) as scorer:
        plain, calls = scorer.infer, itertools.count()

        def infer(prepared: Any, **options: Any) -> Any:
            if next(calls) == 1:
                scorer.prompts.remove(next(iter(scorer.prompts)).key)
            return plain(prepared, **options)

        monkeypatch.setattr(scorer, "infer", infer)
        refused(scorer, "exam.findings", films)


def test_a_single_alternative_has_no_share_to_pool(open_clip_bundle: Path, tmp_path: Path) -> None:
    rule = {"views": ["PA"], "over_views": "mean", "over_sides": "none"}
    with ruled(open_clip_bundle, tmp_path, **rule) as scorer:
        film = dicom_factory.file(pixels(0), ViewPosition="PA")
        whole = scorer.score_exam([film]).examination
        assert whole is not None
        assert values(whole).sum() == pytest.approx(1.0, abs=1e-12)
        for finding in list(scorer.prompts)[1:]:
            scorer.prompts.remove(finding.key)
        refused(scorer, "exam.findings", [film])


def test_a_closed_scorer_scores_no_examination(bundle: Path) -> None:
    with Scorer.open(bundle, site=None) as closed:
        pass
    refused(closed, "score.closed", study())
