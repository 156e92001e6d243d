"""A region is pooled as the model was trained: equal to torchvision's ROI align, on the original's pixels."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from promptray.export.torchvision_guard import ensure_torchvision_imports
from promptray.runtime.errors import ScoringError
from promptray.runtime.geometry import AxisMap, Geometry
from promptray.runtime.region import region_score

GRID = np.random.default_rng(0).normal(size=(14, 14)).astype(np.float32)
PLANE = Geometry.identity(224, 224)


def edges(size: int) -> st.SearchStrategy[tuple[float, float]]:
    return (
        st.tuples(st.floats(0, size), st.floats(0, size))
        .map(lambda pair: (min(pair), max(pair)))
        .filter(lambda pair: pair[1] - pair[0] > 1e-3)
    )


def original(rows: tuple[float, float], columns: tuple[float, float]) -> float:
    """The published training script: 14/224 on the box, then torchvision."""
    ensure_torchvision_imports()
    import torch
    from torchvision.ops import roi_align

    box = torch.tensor([[0.0, columns[0], rows[0], columns[1], rows[1]]]) * torch.tensor(
        [1.0, *[14 / 224] * 4]
    )
    return float(roi_align(torch.from_numpy(GRID)[None, None], box, output_size=1, aligned=False))


@given(edges(224), edges(224))
@settings(deadline=None, max_examples=200)
def test_it_is_roi_align(rows: tuple[float, float], columns: tuple[float, float]) -> None:
    for low, high in (rows, columns):  # a length of whole cells: rounding decides the number of samples
        cells = (high - low) / 16
        if abs(cells - round(cells)) < 1e-4:
            return
    found = region_score(GRID, PLANE, rows=rows, columns=columns)
    assert found.value == pytest.approx(original(rows, columns), abs=1e-4)
    assert found.seen == pytest.approx(1.0)


@given(edges(500), edges(300))
@settings(deadline=None)
def test_a_region_says_what_its_patches_say(rows: tuple[float, float], columns: tuple[float, float]) -> None:
    geometry = Geometry(500, 300, 224, 224, AxisMap(0.5, -13.0), AxisMap(0.5, 37.0))
    grid = np.full((14, 14), 0.25, np.float32)
    if rows[1] * 0.5 - 13 <= 0 or rows[0] * 0.5 - 13 >= 224:
        with pytest.raises(ScoringError, match="did not look"):
            region_score(grid, geometry, rows=rows, columns=columns)
        return
    found = region_score(grid, geometry, rows=rows, columns=columns)
    assert found.value == pytest.approx(0.25)
    assert 0 < found.seen <= 1 + 1e-9


def test_what_a_crop_took_away_is_said() -> None:
    geometry = Geometry(400, 200, 200, 200, AxisMap(1.0, -100.0), AxisMap())
    assert region_score(GRID, geometry, rows=(50, 150), columns=(0, 200)).seen == pytest.approx(0.5)
    with pytest.raises(ScoringError, match="did not look") as caught:
        region_score(GRID, geometry, rows=(0, 100), columns=(0, 200))
    assert caught.value.code == "score.region"


@pytest.mark.parametrize(
    "rows", [(10, 10), (20, 10), (-1, 10), (0, 225), (math.nan, 10), (0, math.nan), (0, math.inf)]
)
def test_what_is_no_region_is_refused(rows: tuple[float, float]) -> None:
    with pytest.raises(ScoringError, match="no region") as caught:
        region_score(GRID, PLANE, rows=rows, columns=(0, 224))
    assert caught.value.code == "score.region"
