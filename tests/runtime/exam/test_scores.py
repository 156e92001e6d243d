"""Examinations through `Scorer`: four views to one density, and the document that says so."""

from __future__ import annotations

import itertools
import json
import threading
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from promptray import Scorer
from promptray.runtime.exam_result import LEFT_OUT, exam_schema
from promptray.runtime.picture import NOTICES
from promptray.runtime.views import VIEW_CODES
from tests import dicom_factory
from tests.exam_scoring import rank, refused, ruled, shares, values
from tests.examinations import (
    VIEWS,
    mammogram,
    pixels,
    study,
)

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((ROOT / "docs" / "exam.schema.json").read_text(encoding="utf-8"))


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


def test_two_images_of_one_view_are_averaged_first(scorer: Scorer) -> None:
    images = [*study(), mammogram("L CC", 4)]
    single, result = shares(scorer, images), scorer.score_exam(images)
    left = ((single[0] + single[4]) / 2 + single[1]) / 2
    assert np.abs(values(result.sides["L"]) - left).max() <= 1e-12
    assert [notice.code for notice in result.notices] == ["view-repeated"]
    assert [image.view for image in result.document.images].count("L CC") == 2


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
