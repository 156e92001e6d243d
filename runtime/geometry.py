"""Where the network looked: the map between an original picture and the network's input plane.

Positions are in pixel-EDGE coordinates: pixel i of an axis covers [i, i + 1) and has its centre at
i + 0.5, so that a resize is a pure scaling. Every preprocessing step is, per axis, a scale and an
offset; their composition is exact enough (double precision) to be inverted.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class AxisMap:
    """One axis: ``network = original * scale + offset``, both in pixel-edge coordinates."""

    scale: float = 1.0
    offset: float = 0.0

    def to_network(self, position: float) -> float:
        """Return the network's position of an original position."""
        return position * self.scale + self.offset

    def to_original(self, position: float) -> float:
        """Return the original position of a network's position."""
        return (position - self.offset) / self.scale

    def then(self, later: AxisMap) -> AxisMap:
        """Return this map followed by a later one."""
        return AxisMap(self.scale * later.scale, self.offset * later.scale + later.offset)


@dataclass(frozen=True)
class Geometry:
    """The invertible transform from an original picture (rows, columns) to the network's (height, width)."""

    rows: int
    columns: int
    height: int
    width: int
    vertical: AxisMap = AxisMap()
    horizontal: AxisMap = AxisMap()

    @classmethod
    def identity(cls, rows: int, columns: int) -> Geometry:
        """Return the geometry of a picture that went through no step yet."""
        return cls(rows, columns, rows, columns)

    def then(self, height: int, width: int, vertical: AxisMap, horizontal: AxisMap) -> Geometry:
        """Return this geometry followed by a step whose result has the given size."""
        return Geometry(
            self.rows,
            self.columns,
            height,
            width,
            self.vertical.then(vertical),
            self.horizontal.then(horizontal),
        )

    def to_network(self, row: float, column: float) -> tuple[float, float]:
        """Return (y, x) in the network's plane of a point of the original, both in edge coordinates."""
        return self.vertical.to_network(row), self.horizontal.to_network(column)

    def to_original(self, y: float, x: float) -> tuple[float, float]:
        """Return (row, column) in the original of a point of the network's plane, in edge coordinates."""
        return self.vertical.to_original(y), self.horizontal.to_original(x)

    def to_json(self) -> dict[str, object]:
        """Return the transform as the result schema writes it.

        ``network = original * scale + offset`` per axis, in pixel-edge coordinates (pixel i covers
        [i, i + 1)); `row` is the vertical axis and `column` the horizontal one.
        """
        return {
            "original": {"rows": self.rows, "columns": self.columns},
            "network": {"height": self.height, "width": self.width},
            "row": {"scale": self.vertical.scale, "offset": self.vertical.offset},
            "column": {"scale": self.horizontal.scale, "offset": self.horizontal.offset},
        }


def map_to_original(grid: NDArray[np.float32], geometry: Geometry) -> NDArray[np.float32]:
    """Lay a network grid over the original picture; NaN where the network did not look.

    Each original pixel takes the value of the grid cell that its centre falls into. Nothing is blurred or
    rescaled: on the network's own plane this is the original CARZero's 16-fold repetition.

    Parameters
    ----------
    grid : ndarray of float32, shape (gh, gw)
        Values over the network's plane, for example 14 x 14 over 224 x 224.
    geometry : Geometry
        The transform returned by :func:`promptray.runtime.preprocess.preprocess`.

    Returns
    -------
    ndarray of float32, shape (rows, columns)
        NaN for the pixels that a crop removed.
    """
    row_cell, row_seen = _cells(geometry.vertical, geometry.rows, geometry.height, grid.shape[0])
    column_cell, column_seen = _cells(geometry.horizontal, geometry.columns, geometry.width, grid.shape[1])
    full = np.full((geometry.rows, geometry.columns), np.nan, np.float32)
    full[np.ix_(row_seen, column_seen)] = grid[np.ix_(row_cell, column_cell)]
    return full


def _cells(
    axis: AxisMap, size: int, network_size: int, cells: int
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return, for the original pixels that the network saw, their grid cell and their own index."""
    centre = (np.arange(size) + 0.5) * axis.scale + axis.offset
    seen = np.flatnonzero((centre >= 0) & (centre < network_size))
    cell = np.floor(centre[seen] * (cells / network_size)).astype(np.intp)
    return np.minimum(cell, cells - 1), seen
