"""The pointing game on maps whose maximum is known."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from promptray.calibrate.pointing_game import PointingGame
from promptray.calibrate.tables.boxes import Box
from promptray.runtime.geometry import AxisMap, Geometry

# 100 rows x 200 columns, halved and padded above and below to 100 x 100: a grid of 4 x 4 cells of 25.
HEAD = "findings"
GEOMETRY = Geometry(100, 200, 100, 100, AxisMap(0.5, 25.0), AxisMap(0.5, 0.0))


def result(row: int, column: int, value: float = 1.0) -> SimpleNamespace:
    grid = np.zeros((4, 4), np.float32)
    grid[row, column] = value
    return SimpleNamespace(grid=lambda key: grid, document=SimpleNamespace(transform=GEOMETRY.to_json()))


def played(box: Box, found: SimpleNamespace):
    game = PointingGame("boxes.csv", {"a": {"mass": [box]}})
    game.play("a", 0, found, HEAD)
    return game.report().findings[0]


@pytest.mark.parametrize(
    ("cell", "point"),
    [((1, 0), (25, 25)), ((1, 3), (175, 25)), ((2, 1), (75, 75))],
    # centres in the network's plane: (12.5, 37.5), (87.5, 37.5), (37.5, 62.5)
)
def test_the_maximum_is_a_cells_centre_in_the_original(cell: tuple[int, int], point: tuple[int, int]) -> None:
    x, y = point
    assert played(Box(x - 1, y - 1, 2, 2), result(*cell)).hits == 1
    assert played(Box(x + 1, y - 1, 20, 20), result(*cell)).hits == 0


def test_a_maximum_in_the_padding_does_not_play() -> None:
    padded = result(0, 2, value=9.0)
    padded.grid("mass")[2, 1] = 1.0
    assert played(Box(74, 74, 2, 2), padded).hits == 1


def test_chance_is_the_share_of_visible_cells_in_a_box() -> None:
    assert played(Box(0, 0, 100, 100), result(1, 0)).chance == 0.5
    assert played(Box(0, 0, 200, 100), result(1, 0)).chance == 1.0


def test_rates_of_several_images_and_findings() -> None:
    box = Box(74, 74, 2, 2)
    boxes = {name: {"mass": [box], "edema": [Box(0, 0, 200, 100)]} for name in "abcd"}
    game = PointingGame("boxes.csv", boxes)
    for patient, (name, cell) in enumerate(zip("abc", [(2, 1), (2, 1), (1, 0)], strict=True)):
        game.play(name, patient // 2, result(*cell), HEAD)
    game.play("no boxes", 9, result(0, 0), HEAD)
    report = game.report()
    edema, mass = report.findings
    assert (mass.key, mass.images, mass.patients, mass.hits) == ("mass", 3, 2, 2)
    assert mass.rate == pytest.approx(2 / 3)
    assert mass.low < mass.rate < mass.high
    assert edema.rate == 1
    assert report.macro_rate == pytest.approx(5 / 6)
    assert report.without_score == 1


def test_nothing_played() -> None:
    report = PointingGame("boxes.csv", {"a": {"mass": [Box(0, 0, 1, 1)]}}).report()
    assert (report.findings, report.macro_rate, report.without_score) == ([], None, 1)
