"""The images of a section: what counts as one patient's."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.calibrate.pipeline.image_sets import noise_set


@pytest.mark.parametrize(
    ("patients", "expected"),
    [
        (["p", "q", "r", "s"], [0, 0, 1, 2]),
        (["p", "q", "q", "s"], [0, 0, 0, 1]),
        (["p", "p", "Ab 1", "aB1"], [0, 0, 1, 1]),
        (None, [0, 0, 1, 2]),
    ],
    ids=["a copy under another id", "and that id has more", "case and blanks", "no ids"],
)
def test_copies_are_of_one_patient(tmp_path: Path, patients: list[str] | None, expected: list[int]) -> None:
    images = noise_set(tmp_path, "gate", [1, 1, 2, 3], patients)
    assert images.patients.tolist() == expected
    assert images.patients_known is (patients is not None)


def test_ids_are_kept_as_hashes(tmp_path: Path) -> None:
    images = noise_set(tmp_path, "gate", [1, 2, 3], ["Doe Jane", "doejane", "x"])
    first, second, third = images.patient_hashes
    assert first == second != third
    assert all(len(each) == 64 for each in images.patient_hashes)
