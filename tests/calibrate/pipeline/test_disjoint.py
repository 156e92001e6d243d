"""A model is gated on other pictures and other patients than those that made it."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptray import BuildError
from promptray.calibrate.pipeline.disjoint import require_disjoint
from tests.calibrate.pipeline.image_sets import noise_set


def test_other_pictures_of_the_same_patients_are_refused_with_counts(tmp_path: Path) -> None:
    gate = noise_set(tmp_path, "gate", [1, 2, 3, 4], ["p", "p", "Q 7", "r"])
    distil = noise_set(tmp_path, "distil", [5, 6], ["q7", "s"])
    with pytest.raises(BuildError, match="patients that the model is distilled with") as refusal:
        require_disjoint(gate, {"distilled": distil}, "recipe.yaml")
    assert refusal.value.code == "gate.images"
    assert "0 of 4 pictures" in str(refusal.value.found)
    assert str(refusal.value.found).endswith("1 of 3 patients")
    assert "q7" not in str(refusal.value).casefold()


def test_a_copy_makes_its_ids_one_patient_across_sections(tmp_path: Path) -> None:
    gate = noise_set(tmp_path, "gate", [1, 2, 3], ["p", "p", "r"])
    calibration = noise_set(tmp_path, "calibration", [1, 9], ["other", "another"])
    with pytest.raises(BuildError, match="images that the model is quantised") as refusal:
        require_disjoint(gate, {"quantised": calibration}, "recipe.yaml")
    assert str(refusal.value.found) == "1 of 3 pictures, as the network sees them; 1 of 2 patients"


def test_other_patients_pass_and_nothing_is_left_to_say(tmp_path: Path) -> None:
    gate = noise_set(tmp_path, "gate", [1, 2], ["p", "q"])
    distil, calibration = (
        noise_set(tmp_path, section, [seed, seed + 1], ["x", "y"])
        for section, seed in (("distil", 3), ("calibration", 5))
    )
    assert require_disjoint(gate, {"distilled": distil, "quantised": calibration}, "recipe.yaml") == []


@pytest.mark.parametrize(("ours", "theirs"), [(None, ["x"]), (["p"], None), (None, None)])
def test_what_no_table_names_is_said_not_to_be_checked(
    tmp_path: Path, ours: list[str] | None, theirs: list[str] | None
) -> None:
    gate, distil = noise_set(tmp_path, "gate", [1], ours), noise_set(tmp_path, "distil", [2], theirs)
    (note,) = require_disjoint(gate, {"distilled": distil}, "recipe.yaml")
    nameless = " and ".join(name for name, ids in (("gate", ours), ("distil", theirs)) if ids is None)
    assert "not checked" in note
    assert note.endswith(f"no patients are named for {nameless}.")
