"""Lay a heat map over the picture it belongs to, at the picture's own resolution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# Black - purple - orange - yellow: brightness rises all the way, so it reads in grey print too.
_STOPS = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], np.float32)
_OPACITY = 0.65
_UNSEEN = 0.4


def overlay(grey: NDArray[np.uint8], heatmap: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Colour a picture by its map.

    The map is scaled to its own range, so colours compare places of ONE image and never images or findings.
    Where the network did not look (NaN) the picture is darkened and not coloured.

    Parameters
    ----------
    grey : uint8 (rows, columns)
    heatmap : float32 (rows, columns)
        From ``Result.heatmap``.

    Returns
    -------
    uint8 (rows, columns, 3)
    """
    seen = np.isfinite(heatmap)
    values = np.where(seen, heatmap, 0.0)
    low, high = (float(heatmap[seen].min()), float(heatmap[seen].max())) if seen.any() else (0.0, 1.0)
    strength = np.where(seen, (values - low) / max(high - low, np.finfo(np.float32).tiny), 0.0).astype(
        np.float32
    )
    stops = np.linspace(0.0, 1.0, len(_STOPS))
    table = np.stack([np.interp(np.linspace(0.0, 1.0, 256), stops, _STOPS[:, c]) for c in range(3)], axis=1)
    colour = table[(strength * 255.0).astype(np.uint8)]
    opacity = (_OPACITY * strength)[..., None]
    base = np.where(seen, grey, grey * _UNSEEN)[..., None].astype(np.float32)
    blended: NDArray[np.uint8] = np.rint(base * (1.0 - opacity) + colour * opacity).astype(np.uint8)
    return blended


def write_overlay(path: Path, grey: NDArray[np.uint8], heatmap: NDArray[np.float32]) -> None:
    """Write :func:`overlay` as a PNG, without any metadata."""
    Image.fromarray(overlay(grey, heatmap)).save(path, format="PNG")
