"""Heat maps find their way back: every step's geometry is inverted, and NaN marks what was not seen."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptray.runtime.bundle.image_rules import (
    CentreCrop,
    Greyscale,
    Normalise,
    PadSquare,
    Preprocessing,
    ResizeLongerSide,
)
from promptray.runtime.geometry import AxisMap, Geometry, map_to_original
from promptray.runtime.preprocess import preprocess

SHAPES = st.tuples(st.integers(2, 600), st.integers(2, 600)).filter(
    lambda shape: max(shape) < 100 * min(shape)
)


def carzero(resize: int = 256, crop: int = 224) -> Preprocessing:
    return Preprocessing(
        greyscale=Greyscale(),
        steps=[ResizeLongerSide(size=resize), PadSquare(size=resize), CentreCrop(size=crop)],
        normalise=Normalise(mean=[0.5], std=[0.5]),
        channels=1,
        height=crop,
        width=crop,
    )


def geometry_of(rows: int, columns: int, spec: Preprocessing | None = None) -> Geometry:
    return preprocess(np.zeros((rows, columns), np.uint8), spec or carzero()).geometry


@given(SHAPES, st.floats(0, 224), st.floats(0, 224))
@settings(deadline=None)
def test_a_network_point_maps_back(shape: tuple[int, int], y: float, x: float) -> None:
    geometry = geometry_of(*shape)
    np.testing.assert_allclose(geometry.to_network(*geometry.to_original(y, x)), (y, x), atol=1e-9)


@given(SHAPES)
@settings(deadline=None)
def test_the_corners_of_the_original_land_on_the_resized_picture(shape: tuple[int, int]) -> None:
    rows, columns = shape
    geometry = geometry_of(rows, columns)
    factor = 256 / max(shape)
    height, width = (256, int(columns * factor)) if rows >= columns else (int(rows * factor), 256)
    top, left = (256 - height) // 2 - 16, (256 - width) // 2 - 16
    np.testing.assert_allclose(geometry.to_network(0, 0), (top, left), atol=1e-9)
    np.testing.assert_allclose(geometry.to_network(rows, columns), (top + height, left + width), atol=1e-9)


@given(SHAPES)
@settings(deadline=None)
def test_nan_is_exactly_what_the_crop_removed(shape: tuple[int, int]) -> None:
    geometry = geometry_of(*shape)
    full = map_to_original(np.ones((14, 14), np.float32), geometry)
    assert full.shape == shape
    for row in range(0, shape[0], 7):
        for column in range(0, shape[1], 7):
            y, x = geometry.to_network(row + 0.5, column + 0.5)
            assert np.isnan(full[row, column]) != (0 <= y < 224 and 0 <= x < 224)


@given(SHAPES, st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_each_pixel_takes_the_cell_over_it(shape: tuple[int, int], seed: int) -> None:
    geometry = geometry_of(*shape)
    grid = np.random.default_rng(seed).random((14, 14), dtype=np.float32)
    plane = grid.repeat(16, axis=0).repeat(16, axis=1)  # the original's own enlargement
    full = map_to_original(grid, geometry)
    assert full.dtype == np.float32
    for row, column in zip(*np.nonzero(~np.isnan(full[::11, ::13])), strict=True):
        y, x = geometry.to_network(row * 11 + 0.5, column * 13 + 0.5)
        assert full[row * 11, column * 13] == plane[int(y), int(x)]


def test_totals_are_kept_where_nothing_is_cropped_and_cells_are_whole() -> None:
    spec = carzero(resize=224, crop=224)
    grid = np.random.default_rng(0).random((14, 14), dtype=np.float32)
    for scale in (1, 2, 5):
        full = map_to_original(grid, geometry_of(224 * scale, 224 * scale, spec))
        np.testing.assert_allclose(
            full.sum(dtype=float), grid.sum(dtype=float) * (16 * scale) ** 2, rtol=1e-6
        )


def test_the_crop_of_a_square_is_one_sixteenth_at_each_end() -> None:
    full = map_to_original(np.ones((14, 14), np.float32), geometry_of(512, 512))
    seen = ~np.isnan(full)
    assert seen.sum() == 448 * 448
    assert seen[32:480, 32:480].all()


def test_a_grid_over_a_non_square_plane() -> None:
    geometry = Geometry(4, 8, 4, 8)
    grid = np.arange(8, dtype=np.float32).reshape(2, 4)
    np.testing.assert_array_equal(map_to_original(grid, geometry), grid.repeat(2, 0).repeat(2, 1))


@pytest.mark.parametrize("shape", [(300, 200), (60, 90), (49, 49)])
def test_json_is_enough_to_map_back(shape: tuple[int, int]) -> None:
    geometry = geometry_of(*shape)
    written = json.loads(json.dumps(geometry.to_json()))
    assert written["original"] == {"rows": shape[0], "columns": shape[1]}
    assert written["network"] == {"height": 224, "width": 224}
    row, column = (AxisMap(**written[axis]) for axis in ("row", "column"))
    assert (row.to_network(10), column.to_network(20)) == geometry.to_network(10, 20)
