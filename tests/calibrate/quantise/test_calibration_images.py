"""Calibration images: the runtime's own reading, the hash, and what makes a set a poor one."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptray import Scorer
from promptray.calibrate.quantise.calibration_images import ENOUGH, CalibrationImages, calibration_images
from promptray.runtime.errors import PromptRayError

SAMPLES = Path(__file__).parents[3] / "examples" / "samples"
PNGS = sorted(SAMPLES.glob("*.png"))


def read(reference: Any, files: list[Path], **options: Any) -> CalibrationImages:
    manifest = reference.bundle.manifest
    return calibration_images(files, manifest.door, manifest.preprocessing, source="samples", **options)


def test_the_network_sees_what_the_scorer_shows_it(reference: Any) -> None:
    images = read(reference, PNGS[:3])
    with Scorer.open(reference.bundle.path, site=None) as scorer:
        for number, path in enumerate(PNGS[:3]):
            expected = scorer.prepare(path, modality="DX").network_input.pixels
            np.testing.assert_array_equal(images.feeds[number]["pixels"], expected)
    assert [feed["pixels"].shape for feed in images.feeds] == [(1, 1, 224, 224)] * 3
    assert len(images.feeds[1:]) == 2


def test_count_hash_and_source_are_kept_and_no_name(reference: Any, tmp_path: Path) -> None:
    renamed = tmp_path / "Smith, John.png"
    shutil.copy(PNGS[0], renamed)
    facts = read(reference, PNGS[:2]).facts
    assert facts == read(reference, [renamed, PNGS[1]]).facts
    assert facts.images == 2
    assert facts.source == "samples"
    assert facts.sha256 != read(reference, [PNGS[1], PNGS[0]]).facts.sha256
    assert facts.sha256 != read(reference, [PNGS[0], PNGS[2]]).facts.sha256


def test_too_few_copies_and_one_class_are_warned_of(reference: Any) -> None:
    def warned(files: list[Path], labels: list[str] | None) -> str:
        return " ".join(read(reference, files, labels=labels).warnings)

    assert "few" in warned(PNGS, ["a", "b"] * 6)
    assert "one class" not in warned(PNGS, ["a", "b"] * 6)
    assert "one class" in warned(PNGS[:2], ["a", "a"])
    assert "no labels" in warned(PNGS[:2], None)
    many = (PNGS * ENOUGH)[:ENOUGH]
    assert f"{ENOUGH - len(PNGS)} of {ENOUGH} images are copies" in warned(many, ["a", "b"] * (ENOUGH // 2))
    assert "few" in warned(many, ["a", "b"] * (ENOUGH // 2))  # copies do not count


@pytest.mark.parametrize(
    ("files", "labels"), [([], None), (PNGS[:2], ["a"]), ([], [])], ids=["none", "labels", "nothing"]
)
def test_an_empty_or_mismatched_set_is_refused(reference: Any, files: list[Path], labels: Any) -> None:
    with pytest.raises(PromptRayError) as caught:
        read(reference, files, labels=labels)
    assert caught.value.code == "quantise.calibration"


def test_an_image_that_the_scorer_would_refuse_is_refused(reference: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(PNGS[0].read_bytes()[:2000])
    with pytest.raises(PromptRayError) as caught:
        read(reference, [PNGS[0], broken])
    assert caught.value.code == "image.broken"
