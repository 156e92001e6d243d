"""Which views an examination has: stated, declared, missing, left out with a reason."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptray import Scorer
from promptray.runtime.exam_result import LEFT_OUT
from tests.exam_scoring import reasons, refused, ruled, values
from tests.examinations import (
    PICTURES,
    VIEWS,
    code,
    mammogram,
    pixels,
    study,
    write_study,
)

SPOT = code("399162004", ViewModifierCodeSequence=[code("399055006")])
IMPLANT = code("399162004", ViewModifierCodeSequence=[code("399209000")])


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
        assert "image 2, bytes [image.broken]" in error.found


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
    arrays = [(pixels(n) >> 4).astype(np.uint8) for n in (1, 2, 3)]
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
