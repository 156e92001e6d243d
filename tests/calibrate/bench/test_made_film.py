"""Films that sweeps score are what they say they are."""

from __future__ import annotations

import numpy as np
import pytest

from promptray.calibrate.bench.made_film import SYNTAXES, dicom, film
from promptray.runtime.bundle.image_rules import Door, Greyscale
from promptray.runtime.door import open_picture

GREY = np.linspace(0, 255, 60 * 50).astype(np.uint8).reshape(60, 50)


def test_a_film_has_its_size_twelve_bits_and_the_noise_of_its_seed() -> None:
    made = film(GREY, 96, 80, seed=1)
    assert (made.shape, made.dtype) == ((96, 80), np.uint16)
    assert made.max() < 4096
    assert np.unique(made & 15).size == 16
    np.testing.assert_array_equal(made, film(GREY, 96, 80, seed=1))
    assert (made != film(GREY, 96, 80, seed=2)).any()
    np.testing.assert_array_equal(film(GREY, 60, 50, seed=1) >> 4, GREY)


@pytest.mark.parametrize("name", SYNTAXES)
@pytest.mark.parametrize("modality", ["CR", "DX", "MG"])
def test_every_syntax_passes_the_door_with_the_films_picture(name: str, modality: str) -> None:
    made = film(GREY, 96, 80, seed=1)
    picture = open_picture(dicom(made, SYNTAXES[name], modality), Door(modalities=[modality]), Greyscale())
    assert picture.source.transfer_syntax == SYNTAXES[name]
    assert (picture.source.rows, picture.source.columns) == (96, 80)
    difference = np.abs(picture.grey.astype(int) - (made >> 4).astype(int))
    assert difference.max() <= (12 if "Baseline" in name else 1)
