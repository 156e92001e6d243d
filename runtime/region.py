"""A region of the image against a finding: the map, pooled over the patches that a box covers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.errors import ScoringError
from promptray.runtime.geometry import AxisMap, Geometry

#: A stretch of one axis of the original picture, pixel edges: from and to.
Extent = tuple[float, float]


@dataclass(frozen=True)
class RegionScore:
    """What a region says of a finding.

    Attributes
    ----------
    value : float
        Of the kind that the head's map has, for example a cosine with the finding's words: no probability.
    seen : float
        Share of the region's area, 0 to 1, that the network saw; the rest was cropped away.
    """

    value: float
    seen: float


def region_score(
    grid: NDArray[np.float32], geometry: Geometry, *, rows: Extent, columns: Extent
) -> RegionScore:
    """Pool a map over a box of the original picture.

    Parameters
    ----------
    grid : float32 array, (grid rows, grid columns)
        Values over the network's plane.
    geometry : Geometry
        Of the picture.
    rows, columns : (float, float)
        First and last edge of the box on the original picture, in pixels: pixel i covers [i, i + 1).

    Returns
    -------
    RegionScore
        Pooling is linear, so pooling the similarities is the similarity of the pooled patches: the region
        vectors that ASG was trained to align with sentences are not brought back to unit length.

    Raises
    ------
    ScoringError
        ``score.region`` for a box that is empty, not finite, outside the picture, or cropped away.
    """
    for name, extent, size in (("rows", rows, geometry.rows), ("columns", columns, geometry.columns)):
        # Comparisons with NaN are false.
        if not 0 <= extent[0] < extent[1] <= size:
            raise ScoringError(
                "score.region",
                "this is no region of the picture",
                artefact=name,
                expected=f"two pixel edges in ascending order, 0 to {size}",
                found=f"{extent[0]:g} to {extent[1]:g}",
            )
    vertical, seen_rows = _on_plane(geometry.vertical, rows, geometry.height)
    horizontal, seen_columns = _on_plane(geometry.horizontal, columns, geometry.width)
    if seen_rows <= 0 or seen_columns <= 0:
        raise ScoringError(
            "score.region",
            "the network did not look at this region: preprocessing crops it away",
            artefact=f"rows {rows[0]:g} to {rows[1]:g}, columns {columns[0]:g} to {columns[1]:g}",
            cure="choose a region that the heat map covers",
        )
    across = _weights(vertical, geometry.height, grid.shape[0])
    along = _weights(horizontal, geometry.width, grid.shape[1])
    return RegionScore(float(across @ grid.astype(np.float64) @ along), seen_rows * seen_columns)


def _on_plane(axis: AxisMap, extent: Extent, size: int) -> tuple[Extent, float]:
    """Return what of an extent is on the network's plane, there, and its share."""
    first, last = (axis.to_network(edge) for edge in extent)
    kept = max(first, 0.0), min(last, float(size))
    return kept, (kept[1] - kept[0]) / (last - first)


def _weights(extent: Extent, size: int, cells: int) -> NDArray[np.float64]:
    """Return each cell's weight in one bin of ROI align over an extent of the network's plane.

    As the model was trained: torchvision's ``roi_align`` with one bin, ``aligned=False`` (a cell's value sits
    at its first edge, and no bin is shorter than a cell) and as many evenly spaced samples as the bin has
    cells, rounded up. Source: He et al., "Mask R-CNN", ICCV 2017, section 3.
    """
    scale = cells / size
    first, length = extent[0] * scale, max((extent[1] - extent[0]) * scale, 1.0)
    samples = math.ceil(length)
    positions = np.minimum(first + (np.arange(samples) + 0.5) * length / samples, cells - 1)
    lower = np.floor(positions).astype(np.intp)
    upper = np.minimum(lower + 1, cells - 1)
    part = positions - lower
    weights = np.zeros(cells)
    np.add.at(weights, lower, (1 - part) / samples)
    np.add.at(weights, upper, part / samples)
    return weights
