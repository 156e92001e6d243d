from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from promptray.calibrate.distil.settings import read_settings
from promptray.calibrate.distil.targets import Targets
from promptray.calibrate.distil.teacher import teacher_of
from promptray.calibrate.distil.views import mixed, pixels, view
from tests.calibrate.distil import pupils

SMALL = pupils.small()
LEARNED = [0, 2, 3, 5]


def targets(folder: Path, learned: list[int] = LEARNED, **augment: Any) -> Targets:
    settings = read_settings({"student": "test_vit", "augment": {"views": 6, **augment}})
    images = pupils.images(8, SMALL)
    made = partial(pixels, rule=SMALL.preprocessing)
    return Targets(
        folder, teacher_of(SMALL, pupils.findings(SMALL)), images, settings.augment, 4, made, learned
    )


def test_a_mixed_view_is_between_two_views() -> None:
    first, second = np.full((2, 3), 200, np.uint8), np.full((2, 3), 40, np.uint8)
    np.testing.assert_allclose(mixed(first, second, 0.25), 80)
    assert mixed(first, second, 0.25).dtype == np.float32


def test_views_are_mixed_with_those_that_are_learned_from(tmp_path: Path) -> None:
    plain, every = targets(tmp_path), targets(tmp_path, mix=1)
    rows, first = list(range(8)), [0] * 8
    assert torch.equal(plain.views(rows, first), every.views(rows, first))
    found, partners = 0, set()
    for number in range(1, 6):
        singles = plain.views(rows, [number] * 8).flatten(1)
        for row, answer in enumerate(every.views(rows, [number] * 8).flatten(1)):
            # answer = s a + (1 - s) b for one b of those that are learned from, and one s
            errors = []
            for other in LEARNED:
                step = singles[row] - singles[other]
                share = ((answer - singles[other]) @ step / (step @ step).clamp(min=1e-9)).clamp(0, 1)
                errors.append(float((answer - singles[other] - share * step).abs().max()))
            assert min(errors) < 1e-3
            found += 1
            partners.add(LEARNED[int(np.argmin(errors))])
    assert found == 40
    assert partners == set(LEARNED)


def test_some_views_are_mixed(tmp_path: Path) -> None:
    plain, half = targets(tmp_path), targets(tmp_path, mix=0.5)
    same = [
        torch.equal(*(each.views([row], [number]) for each in (plain, half)))
        for row in range(8)
        for number in range(1, 6)
    ]
    assert 10 <= sum(same) <= 30


def test_answers_of_other_mixtures_are_others(tmp_path: Path) -> None:
    hashes = {
        targets(tmp_path).sha256,
        targets(tmp_path, mix=0.5).sha256,
        targets(tmp_path, mix=1).sha256,
        targets(tmp_path, learned=[0, 1], mix=1).sha256,
    }
    assert len(hashes) == 4
    assert targets(tmp_path, learned=[0, 1]).sha256 == targets(tmp_path).sha256  # no view is mixed


@pytest.mark.parametrize("number", range(1, 5))
def test_a_view_is_within_its_bounds_and_the_same_again(number: int) -> None:
    picture = pupils.pictures(1, SMALL)[0]
    rule = read_settings({"student": "test_vit"}).augment
    first, again = (view(picture, rule, number, (3, 1)) for _ in range(2))
    assert np.array_equal(first, again)
    assert first.min() >= 0
    assert first.max() <= 255
    assert not np.array_equal(first, picture)
