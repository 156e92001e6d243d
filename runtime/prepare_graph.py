"""What a bundle's `prepare` graph is fed with: it takes stored values to the network's pixels on a device.

    levels of grey = table[code]            one look-up, by the table of the CPU's own chain
    resized        = down @ levels @ across   the filter as two matrices; padding and crop are in their shape
    pixels         = normalise(round(resized + border))

Table and matrices are made on the host: the table for each image, the matrices once for each size of image.
Pixels are within one grey level of those of `promptray.runtime.preprocess`, and mostly equal.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.bundle.image_rules import (
    CentreCrop,
    PadSquare,
    Preprocessing,
)
from promptray.runtime.bundle.validate_preprocessing import RESIZES, prepare_fault
from promptray.runtime.dicom.greyscale import LARGEST_CONTAINER, Tabulated, tabulated
from promptray.runtime.dicom.photometric import Photometric
from promptray.runtime.errors import ImageError
from promptray.runtime.geometry import AxisMap, Geometry
from promptray.runtime.preprocess import (
    NetworkInput,
    cropping_before,
    padding_before,
    preprocess,
    resized_size,
)
from promptray.runtime.resize_matrix import Matrix, nudge_of, resize_matrices

#: Sizes of images whose matrices are kept: 5 megapixels take 4 MB.
_KEPT = 16


@dataclass(frozen=True)
class PrepareTensor:
    """An input or output of the graph."""

    name: str
    dtype: str
    dims: tuple[int | str, ...]


@dataclass(frozen=True)
class PrepareFacts:
    """The graph of a bundle: the format document says what goes in and comes out.

    Attributes
    ----------
    file : str
        Its name in the bundle.
    inputs, outputs : tuple of PrepareTensor
    """

    file: str
    inputs: tuple[PrepareTensor, ...]
    outputs: tuple[PrepareTensor, ...]
    role: str = "prepare"
    title: str = "prepare"
    head: str | None = None

    @classmethod
    def of(cls, file: str, spec: Preprocessing) -> PrepareFacts:
        """Return the facts of the graph of a bundle's preprocessing."""
        height, width = spec.height, spec.width
        inputs = (
            PrepareTensor("codes", "int32", ("rows", "columns")),
            PrepareTensor("table", "float32", ("values",)),
            PrepareTensor("down", "float32", (height, "rows")),
            PrepareTensor("across", "float32", ("columns", width)),
            PrepareTensor("border", "float32", (height, width)),
        )
        return cls(file, inputs, (PrepareTensor("pixels", "float32", (1, spec.channels, height, width)),))


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


@dataclass(frozen=True, eq=False)
class StoredImage:
    """An image at its original size, which a device brings to the network's input.

    Attributes
    ----------
    tabulated : Tabulated
        Codes of its stored values, and the grey of every code.
    plan : SizePlan
    spec : Preprocessing
    """

    tabulated: Tabulated
    plan: SizePlan
    spec: Preprocessing

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the network's input that it becomes."""
        return 1, self.spec.channels, self.spec.height, self.spec.width

    @property
    def geometry(self) -> Geometry:
        """From the original picture to the network's plane."""
        return self.plan.geometry

    @property
    def tensors(self) -> Mapping[str, NDArray[Any]]:
        """The graph's inputs, codes and table in narrower types than the graph takes."""
        plan = self.plan
        return {
            "codes": self.tabulated.codes,
            "table": self.tabulated.table,
            "down": plan.down,
            "across": plan.across,
            "border": plan.border,
        }

    @property
    def inputs(self) -> dict[str, NDArray[Any]]:
        """The graph's inputs in its own types."""
        return {
            name: values.astype(np.int32 if name == "codes" else np.float32, copy=False)
            for name, values in self.tensors.items()
        }

    @cached_property
    def network_input(self) -> NetworkInput:
        """What the CPU makes of it: the device's pixels are within one grey level of these."""
        return preprocess(self.tabulated.grey, self.spec)


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
        return self._feeds(tabulated(stored, photometric))

    def of_grey(self, grey: NDArray[np.uint8]) -> tuple[dict[str, NDArray[np.generic]], Geometry]:
        """Return the inputs of an 8-bit grey picture (rows, columns), and where its pixels go.

        Raises
        ------
        ImageError
            ``image.too-small`` or ``image.too-large``.
        """
        return self._feeds(Tabulated.of_grey(grey))

    def image(self, picture: Tabulated) -> StoredImage:
        """Return an image as a device takes it; nothing of its size is copied.

        Raises
        ------
        ImageError
            ``image.too-small`` or ``image.too-large``.
        """
        return StoredImage(picture, self.plan(*picture.codes.shape), self._spec)

    def _feeds(self, picture: Tabulated) -> tuple[dict[str, NDArray[np.generic]], Geometry]:
        image = self.image(picture)
        return image.inputs, image.geometry

    def _plan(self, rows: int, columns: int) -> SizePlan:
        first, *rest = self._spec.steps
        assert isinstance(first, RESIZES)  # noqa: S101 - prepare_fault looked
        size = resized_size(first, rows, columns)
        geometry = Geometry.identity(rows, columns).then(
            *size, AxisMap(size[0] / rows), AxisMap(size[1] / columns)
        )
        # Where each place of the picture was after the resize, by axis; -n: the n-th step padded it.
        places = [np.arange(side) for side in size]
        for number, step in enumerate(rest, 1):
            if isinstance(step, PadSquare):
                moved = [padding_before(step.size, len(each)) for each in places]
                around = [(by, step.size - len(each) - by) for by, each in zip(moved, places, strict=True)]
                places = [
                    np.pad(each, ends, constant_values=-number)
                    for each, ends in zip(places, around, strict=True)
                ]
            elif isinstance(step, CentreCrop):
                moved = [-cropping_before(step.size, len(each)) for each in places]
                places = [each[-by : step.size - by] for by, each in zip(moved, places, strict=True)]
            geometry = geometry.then(step.size, step.size, *(AxisMap(offset=by) for by in moved))
        # What a crop cuts off is never made: of a thin picture that would be nearly everything.
        down, across = resize_matrices(
            first.interpolation, (rows, columns), size, places, whole=self._spec.levels == "uint8"
        )
        levels = [nudge_of(first.interpolation, (rows, columns), size)]
        levels += [step.value if isinstance(step, PadSquare) else 0 for step in rest]
        above, beside = (np.maximum(-each, 0) for each in places)
        border = np.array(levels, np.float32)[np.maximum(above[:, None], beside)]
        return SizePlan(down, across, border, geometry)
