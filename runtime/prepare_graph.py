"""What a bundle's `prepare` graph is fed with: it takes stored values to the network's pixels on a device.

    levels of grey = table[code]            one look-up, by the table of the CPU's own chain
    resized        = down @ levels @ across   the filter as two matrices; padding and crop are in their shape
    pixels         = normalise(round(resized + border))

Table and matrices are made on the host: the table for each image, the matrices once for each size of image.
Pixels are within one grey level of those of `promptray.runtime.preprocess`, and mostly equal.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.bundle.image_rules import (
    CentreCrop,
    PadSquare,
    Preprocessing,
)
from promptray.runtime.bundle.validate_preprocessing import RESIZES, prepare_fault
from promptray.runtime.dicom.greyscale import LARGEST_CONTAINER, codes_of, grey_table
from promptray.runtime.dicom.photometric import Photometric
from promptray.runtime.errors import ImageError
from promptray.runtime.geometry import AxisMap, Geometry
from promptray.runtime.preprocess import cropping_before, padding_before, resized_size
from promptray.runtime.resize_matrix import Matrix, nudge_of, resize_matrices

#: Sizes of images whose matrices are kept: 5 megapixels take 4 MB.
_KEPT = 16


@dataclass(frozen=True, eq=False)
class SizePlan:
    """How images of one size are prepared.

    Attributes
    ----------
    down : float32 (height, rows)
    across : float32 (columns, width)
    border : float32 (height, width)
        Added to the resized picture: the padding's level outside of it, inside what makes the graph round
        as the CPU does.
    geometry : Geometry
        From the original picture to the network's plane.
    """

    down: Matrix
    across: Matrix
    border: Matrix
    geometry: Geometry


class PrepareFeeds:
    """Makes the inputs of a bundle's `prepare` graph. Thread-safe.

    Parameters
    ----------
    spec : Preprocessing
        Of the bundle; one without :func:`prepare_fault`.

    Raises
    ------
    ValueError
        For one with.
    """

    def __init__(self, spec: Preprocessing) -> None:
        if fault := prepare_fault(spec):
            raise ValueError(f"no prepare graph: {fault}")
        self._spec = spec
        self.plan = lru_cache(maxsize=_KEPT)(self._plan)

    def of_stored(
        self, stored: NDArray[np.integer], photometric: Photometric
    ) -> tuple[dict[str, NDArray[np.generic]], Geometry]:
        """Return the inputs of a DICOM frame, and where its pixels go.

        Parameters
        ----------
        stored : ndarray of integers, shape (rows, columns)
            Sign-extended, in a container of 8 or 16 bits.
        photometric : Photometric

        Raises
        ------
        ImageError
            ``image.depth`` for a wider container; ``image.constant``; ``image.too-small``;
            ``image.too-large``.
        """
        if stored.dtype.itemsize > LARGEST_CONTAINER:
            raise ImageError(
                "image.depth",
                "stored values of so many bits cannot be tabulated, so the device cannot prepare the image",
                expected=f"a container of at most {8 * LARGEST_CONTAINER} bits",
                found=f"{8 * stored.dtype.itemsize} bits",
                cure="prepare this image on the CPU",
            )
        codes = codes_of(stored)
        return self._feeds(codes, grey_table(stored, codes, photometric))

    def of_grey(self, grey: NDArray[np.uint8]) -> tuple[dict[str, NDArray[np.generic]], Geometry]:
        """Return the inputs of an 8-bit grey picture (rows, columns), and where its pixels go.

        Raises
        ------
        ImageError
            ``image.too-small`` or ``image.too-large``.
        """
        return self._feeds(grey, np.arange(256, dtype=np.uint8))

    def _feeds(
        self, codes: NDArray[np.unsignedinteger], table: NDArray[np.uint8]
    ) -> tuple[dict[str, NDArray[np.generic]], Geometry]:
        plan = self.plan(*codes.shape)
        feeds: dict[str, NDArray[np.generic]] = {
            "codes": codes.astype(np.int32),
            "table": table.astype(np.float32),
            "down": plan.down,
            "across": plan.across,
            "border": plan.border,
        }
        return feeds, plan.geometry

    def _plan(self, rows: int, columns: int) -> SizePlan:
        first, *rest = self._spec.steps
        assert isinstance(first, RESIZES)  # noqa: S101 - prepare_fault looked
        size = resized_size(first, rows, columns)
        whole = self._spec.levels == "uint8"
        down, across = resize_matrices(first.interpolation, (rows, columns), size, whole=whole)
        nudge = nudge_of(first.interpolation, (rows, columns), size)
        border = np.full(size, nudge, np.float32)
        geometry = Geometry.identity(rows, columns).then(
            *size, AxisMap(size[0] / rows), AxisMap(size[1] / columns)
        )
        for step in rest:
            height, width = border.shape
            if isinstance(step, PadSquare):
                top, left = padding_before(step.size, height), padding_before(step.size, width)
                around = (top, step.size - height - top), (left, step.size - width - left)
                down = np.pad(down, (around[0], (0, 0)))
                across = np.pad(across, ((0, 0), around[1]))
                border = np.pad(border, around, constant_values=step.value)
                geometry = geometry.then(step.size, step.size, AxisMap(offset=top), AxisMap(offset=left))
            elif isinstance(step, CentreCrop):
                top, left = cropping_before(step.size, height), cropping_before(step.size, width)
                down, across = down[top : top + step.size], across[:, left : left + step.size]
                border = border[top : top + step.size, left : left + step.size]
                geometry = geometry.then(step.size, step.size, AxisMap(offset=-top), AxisMap(offset=-left))
        down, across, border = (np.ascontiguousarray(each) for each in (down, across, border))
        return SizePlan(down, across, border, geometry)
