"""Examinations through `Scorer`: four views to one density, and everything that must not become a score."""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pydicom
import pytest

from promptray import BundleError, ExamResult, ImageError, Scorer, ScoringError
from promptray.runtime.bundle import Bundle
from promptray.runtime.exam_result import LEFT_OUT, exam_schema
from promptray.runtime.picture import NOTICES
from promptray.runtime.views import VIEW_CODES
from tests import dicom_factory
from tests.bundle_factory import edited
from tests.examinations import (
    PICTURES,
    VIEWS,
    code,
    density_bundle,
    mammogram,
    pixels,
    study,
    with_rule,
    write_study,
)

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "docs" / "exam.schema.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def bundle(shared_dir: Path) -> Path:
    return density_bundle(shared_dir)


@pytest.fixture(scope="module")
def scorer(bundle: Path) -> Iterator[Scorer]:
    with Scorer.open(bundle, site=None) as opened:
        yield opened


def ruled(bundle: Path, folder: Path, **changes: Any) -> Scorer:
    return Scorer.open(with_rule(bundle, folder, **changes), site=None)


def shares(scorer: Scorer, images: Sequence[bytes]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Shares of single images, one a row."""
    return np.array([[s.softmax for s in scorer.score(image).scores.values()] for image in images])


def values(scores: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([finding.value for finding in scores.findings])


def rank(row: np.ndarray[Any, np.dtype[np.float64]]) -> float:
    return float(row @ np.arange(1, len(row) + 1))


def refused(scorer: Scorer, code: str, sources: Sequence[Any], **options: Any) -> Any:
    with pytest.raises((ImageError, ScoringError)) as refusal:
        scorer.score_exam(sources, **options)
    assert refusal.value.code == code
    assert dicom_factory.NAME not in str(refusal.value)
    assert "1.2.3" not in str(refusal.value), "UIDs are in results only"
    return refusal.value


def reasons(result: ExamResult) -> list[tuple[int, str]]:
    return [(image.number, image.code) for image in result.left_out]


def test_the_density_is_that_of_the_denser_breast(scorer: Scorer) -> None:
    images = study()
    single, result = shares(scorer, images), scorer.score_exam(images)
    left, right = single[:2].mean(axis=0), single[2:].mean(axis=0)
    assert np.abs(values(result.sides["L"]) - left).max() <= 1e-12
    assert np.abs(values(result.sides["R"]) - right).max() <= 1e-12
    denser = "L" if rank(left) > rank(right) else "R"
    assert rank(left) != rank(right)
    assert result.examination == result.sides[denser]
    (summary,) = result.examination.summaries
    assert summary.expected_rank == pytest.approx(max(rank(left), rank(right)), abs=1e-12)
    assert summary.groups["dense"] == pytest.approx(max(left[2:].sum(), right[2:].sum()), abs=1e-12)
    assert result.examination.scores["D"].views == [view for view in VIEWS if view[0] == denser]
    assert (result.missing_views, result.left_out, result.notices) == ((), (), ())


def test_the_document_says_what_it_was_made_of(scorer: Scorer) -> None:
    result = scorer.score_exam(study())
    document = result.to_json()
    jsonschema.Draft202012Validator(SCHEMA).validate(json.loads(json.dumps(document)))
    assert exam_schema() == SCHEMA
    assert document["schema"] == "promptray-examination"
    assert document["bundle"]["sha256"] == scorer.bundle.hash
    assert document["study_instance_uid"] == "1.2.3.4"
    assert document["rule"]["rule"]["over_sides"] == "max"
    assert "Sides: the one of the greatest expected rank." in document["rule"]["words"]
    assert [(image["number"], image["view"]) for image in document["images"]] == list(enumerate(VIEWS, 1))
    assert [image["result"] for image in document["images"]] == [one.to_json() for one in result.results]
    assert [image["result"]["source"]["view"] for image in document["images"]] == ["CC", "MLO", "CC", "MLO"]
    assert {finding["of"] for finding in document["examination"]["findings"]} == {"softmax"}
    assert dicom_factory.NAME not in json.dumps(document)


def test_the_order_of_the_images_does_not_matter(scorer: Scorer) -> None:
    images = [*study(), mammogram("R MLO", 4)]
    first = scorer.score_exam(images)
    for order in itertools.islice(itertools.permutations(range(5)), 7, None, 31):
        other = scorer.score_exam([images[n] for n in order])
        assert other.sides == first.sides
        assert other.examination == first.examination


def test_sides_may_be_averaged_or_kept_apart(bundle: Path, scorer: Scorer, tmp_path: Path) -> None:
    single = shares(scorer, study()).reshape(2, 2, 4).mean(axis=1)
    with ruled(bundle, tmp_path / "mean", over_sides="mean") as averaging:
        whole = averaging.score_exam(study()).examination
        assert np.abs(values(whole) - single.mean(axis=0)).max() <= 1e-12
    with ruled(bundle, tmp_path / "none", over_sides="none") as apart:
        result = apart.score_exam(study())
        assert result.examination is None
        assert np.abs(values(result.sides["R"]) - single[1]).max() <= 1e-12


def test_the_denser_view_of_a_side(bundle: Path, scorer: Scorer, tmp_path: Path) -> None:
    single = shares(scorer, study())
    with ruled(bundle, tmp_path, over_views="max") as greatest:
        result = greatest.score_exam(study())
    rows = [max(single[:2], key=rank), max(single[2:], key=rank)]
    assert np.abs(values(result.sides["L"]) - rows[0]).max() <= 1e-12
    assert np.abs(values(result.examination) - max(rows, key=rank)).max() <= 1e-12


def test_missing_views_are_reported(scorer: Scorer) -> None:
    result = scorer.score_exam(study(VIEWS[:3]))
    assert result.missing_views == ("R MLO",)
    assert result.sides["R"].scores["A"].views == ["R CC"]
    one_side = scorer.score_exam(study(VIEWS[:2]))
    assert one_side.missing_views == ("R CC", "R MLO")
    assert list(one_side.sides) == ["L"]
    assert one_side.examination == one_side.sides["L"]


def test_missing_views_may_be_refused(bundle: Path, tmp_path: Path) -> None:
    broken = study()
    broken[1] = broken[1][:900]
    with ruled(bundle, tmp_path, require_all=True) as complete:
        assert complete.score_exam(study()).missing_views == ()
        error = refused(complete, "exam.incomplete", study(VIEWS[:3]))
        assert "no R MLO" in error.found
        error = refused(complete, "exam.incomplete", broken)
        assert "no L MLO" in error.found
        assert "bytes [image.broken]" in error.found


def test_an_examination_without_any_view_has_no_score(scorer: Scorer) -> None:
    refused(scorer, "exam.incomplete", [])
    error = refused(scorer, "exam.incomplete", [mammogram("L ML", 0)])
    assert "view-not-expected" in error.found


def test_a_refused_image_is_a_missing_view(scorer: Scorer, tmp_path: Path) -> None:
    paths = write_study(tmp_path)
    paths[0].write_bytes(mammogram("L CC", 0, Modality="CT"))
    result = scorer.score_exam([*paths, tmp_path / "absent.dcm"])
    assert reasons(result) == [(1, "image.modality"), (5, "image.not-found")]
    assert all(image.refused for image in result.left_out)
    assert result.left_out[0].name == paths[0].name
    assert result.missing_views == ("L CC",)
    assert [image.number for image in result.document.images] == [2, 3, 4]
    declared = scorer.score_exam(paths, views=["L CC", None, None, None])
    assert [image.view for image in declared.left_out] == ["L CC"]


def test_real_mammograms(scorer: Scorer, data_dir: Path | None) -> None:
    """One states its view and passes; the other's tags give another modality."""
    if data_dir is None:
        pytest.skip("needs --data")
    folder = data_dir / "dicom" / "files"
    result = scorer.score_exam([folder / "OutOfBoundsOverlay.dcm", folder / "MG1_J2KI.dcm"])
    assert [(image.number, image.view) for image in result.document.images] == [(1, "L CC")]
    assert reasons(result) == [(2, "image.modality")]
    assert result.missing_views == ("L MLO", "R CC", "R MLO")
    assert result.examination == result.sides["L"]


def test_two_images_of_one_view_are_averaged_first(scorer: Scorer) -> None:
    images = [*study(), mammogram("L CC", 4)]
    single, result = shares(scorer, images), scorer.score_exam(images)
    left = ((single[0] + single[4]) / 2 + single[1]) / 2
    assert np.abs(values(result.sides["L"]) - left).max() <= 1e-12
    assert [notice.code for notice in result.notices] == ["view-repeated"]
    assert [image.view for image in result.document.images].count("L CC") == 2


SPOT = code("399162004", ViewModifierCodeSequence=[code("399055006")])
IMPLANT = code("399162004", ViewModifierCodeSequence=[code("399209000")])


@pytest.mark.parametrize(
    ("tags", "reason", "known"),
    [
        ({"ViewPosition": None}, "view-unknown", "L"),
        ({"ViewPosition": "CCID"}, "view-unknown", "L"),
        ({"ImageLaterality": None}, "view-unknown", "CC"),
        ({"ImageLaterality": None, "ViewPosition": None}, "view-unknown", None),
        ({"ViewCodeSequence": [code("399368009")]}, "view-contradictory", "L CC/MLO"),
        ({"Laterality": "R"}, "view-contradictory", "L/R CC"),
        ({"ViewCodeSequence": [SPOT]}, "view-modified", "L CC (spot compression)"),
        ({"ViewCodeSequence": [IMPLANT]}, "view-modified", "L CC (implant displaced)"),
        ({"PartialView": "YES"}, "view-modified", "L CC (partial)"),
        ({"ViewPosition": "XCCL"}, "view-not-expected", "L XCCL"),
        ({"ImageLaterality": "B"}, "view-not-expected", "B CC"),
    ],
)
def test_an_image_of_another_view_is_left_out(
    tags: dict[str, Any], reason: str, known: str | None, scorer: Scorer
) -> None:
    images, whole = study(), scorer.score_exam(study())
    result = scorer.score_exam([mammogram("L CC", 7, **tags), *images])
    assert reasons(result) == [(1, reason)]
    assert (result.left_out[0].view, result.left_out[0].refused) == (known, False)
    assert result.left_out[0].message == LEFT_OUT[reason]
    assert result.examination == whole.examination
    assert result.missing_views == ()


def test_views_of_pictures_are_declared(scorer: Scorer) -> None:
    arrays = [(pixels(n) >> 4).astype(np.uint8) for n in range(3)]
    sources = [PICTURES[0], *arrays]
    result = scorer.score_exam(sources, views=["l-cc", "L MLO", "R CC", "R MLO"], modality="MG")
    assert [image.view_declared for image in result.document.images] == [True] * 4
    assert [notice.code for notice in result.notices] == ["study-absent"]
    assert result.document.study_instance_uid is None
    single = [scorer.score(source, modality="MG") for source in sources]
    left = np.mean([[s.softmax for s in one.scores.values()] for one in single[:2]], axis=0)
    assert np.abs(values(result.sides["L"]) - left).max() <= 1e-12
    undeclared = scorer.score_exam(sources, views=["L CC", None, "R CC", None], modality="MG")
    assert reasons(undeclared) == [(2, "view-unknown"), (4, "view-unknown")]


def test_a_declaration_stands_in_for_absent_tags_only(scorer: Scorer) -> None:
    images = study()
    images[0] = mammogram(None, 0, ImageLaterality="L")
    result = scorer.score_exam(images, views=["L CC", "L MLO", None, None])
    assert [image.view_declared for image in result.document.images] == [True, False, False, False]
    for views, found in ((["R CC", None, None, None], "L"), ([None, "L CC", None, None], "L MLO")):
        assert refused(scorer, "exam.view", images, views=views).found == found
    spot = mammogram("L CC", 8, ViewCodeSequence=[SPOT])
    result = scorer.score_exam([*study(), spot], views=[None, None, None, None, "L CC"])
    assert reasons(result) == [(5, "view-modified")]
    both = mammogram("L CC", 8, ViewCodeSequence=[code("399368009")])
    refused(scorer, "exam.view", [*study(), both], views=[None, None, None, None, "L CC"])


@pytest.mark.parametrize("label", ["CC", "LCC", "", "L XX", "left CC", 3, "L CC\n\x1b[31m"])
def test_a_declared_view_is_one(scorer: Scorer, label: Any) -> None:
    error = refused(scorer, "exam.view", study(("L CC",)), views=[label])
    assert error.found == ascii(label)


def test_views_are_said_for_every_source(scorer: Scorer) -> None:
    with pytest.raises(ValueError, match="for each source"):
        scorer.score_exam(study(), views=["L CC"])


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
    refused(scorer, "exam.mixed", [*study(), study()[0]])
    refused(scorer, "exam.mixed", [*study(), mammogram("R ML", 0)])


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


def test_a_chest_examination_takes_the_greatest_of_each_finding(carzero_bundle: Path, tmp_path: Path) -> None:
    rule = {"views": ["PA", "LL"], "over_views": "max", "over_sides": "none"}
    films = [
        dicom_factory.file(pixels(n), ViewPosition=view, ImageLaterality=side, SOPInstanceUID=f"1.2.3.9.{n}")
        for n, (view, side) in enumerate((("PA", "U"), ("LL", None)))
    ]
    with ruled(carzero_bundle, tmp_path, **rule) as scorer:
        single = np.array([[s.logit for s in scorer.score(film).scores.values()] for film in films])
        result = scorer.score_exam(films)
        assert result.examination is not None
        assert (values(result.examination) == single.max(axis=0)).all()
        views = [finding.views for finding in result.examination.findings]
        assert views == [[("PA", "LL")[place]] for place in single.argmax(axis=0)]
        assert {finding.of for finding in result.examination.findings} == {"logit"}
        assert (dict(result.sides), result.examination.summaries) == ({}, [])
        refused(scorer, "exam.view", films, views=["L PA", None])


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


def test_examinations_may_be_scored_side_by_side(scorer: Scorer) -> None:
    expected, found = scorer.score_exam(study()).examination, []
    threads = [
        threading.Thread(target=lambda: found.append(scorer.score_exam(study()).examination)) for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected, expected]


def test_codes_of_examinations_are_explained() -> None:
    page = (ROOT / "docs" / "examinations.md").read_text(encoding="utf-8")
    assert [code for code in LEFT_OUT if f"`{code}`" not in page] == []
    assert [term for term in VIEW_CODES if f"`{term}`" not in page] == []
    assert {"study-absent", "view-repeated"} <= NOTICES.keys()
    assert all(f"`{code}`" in page for code in ("study-absent", "view-repeated"))
