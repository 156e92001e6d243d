"""What the stored values of a grey image mean: the facts that the grey scale chain needs, and no tags."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class LookupTable:
    """A modality or VOI lookup table (PS3.3 C.11.1.1, C.11.2.1.1).

    Attributes
    ----------
    first : int
        Input value of the first entry; lower inputs take the first entry, higher ones than the last
        entry's take the last.
    entries : ndarray of uint16, shape (n,)
        Output values.
    bits : int
        Bits per entry, 8 to 16: the output range is 0 to 2**bits - 1.
    """

    first: int
    entries: NDArray[np.uint16]
    bits: int

    def problem(self) -> str | None:
        """Return what makes the table impossible, or None."""
        if self.entries.ndim != 1 or not 1 <= self.entries.size <= 65536:
            return "a lookup table has no entries"
        if not 8 <= self.bits <= 16:
            return "a lookup table states bits per entry outside 8 to 16"
        if int(self.entries.max()) >= 1 << self.bits:
            return "a lookup table holds entries above its stated bits"
        return None


@dataclass(frozen=True, eq=False)
class Photometric:
    """The photometric facts of an image of integer stored values.

    Attributes
    ----------
    interpretation : {'MONOCHROME2', 'MONOCHROME1'}
        Whether the least value is shown black (2) or white (1), C.7.6.3.1.2.
    bits_stored : int
        Bits of a stored value, 1 to 32.
    signed : bool
        Two's complement (pixel representation 1).
    rescale_slope, rescale_intercept : float
        Modality rescale, C.11.1: ``slope * stored + intercept``. Ignored where there is a `modality_lut`.
    modality_lut : LookupTable or None
    window : (center, width) or None
        The first window; ignored where there is a `voi_lut`.
    voi_function : {'LINEAR', 'LINEAR_EXACT', 'SIGMOID'}
        How the window is applied, C.11.2.1.2 and C.11.2.1.3.
    voi_lut : LookupTable or None
    padding : (low, high) or None
        Stored values, inclusive, that are no image (C.7.5.1.1.2): black, and left out of statistics.
    presentation_lut_shape : {'IDENTITY', 'INVERSE'} or None
        C.11.6.1.2; must agree with `interpretation` (C.8.11.3.1.2).

    Examples
    --------
    >>> Photometric(bits_stored=12, window=(2048.0, 4096.0)).problem() is None
    True
    """

    interpretation: Literal["MONOCHROME2", "MONOCHROME1"] = "MONOCHROME2"
    bits_stored: int = 16
    signed: bool = False
    rescale_slope: float = 1.0
    rescale_intercept: float = 0.0
    modality_lut: LookupTable | None = None
    window: tuple[float, float] | None = None
    voi_function: Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"] = "LINEAR"
    voi_lut: LookupTable | None = None
    padding: tuple[int, int] | None = None
    presentation_lut_shape: Literal["IDENTITY", "INVERSE"] | None = None

    @property
    def inverted(self) -> bool:
        """True when the least value is shown white."""
        return self.interpretation == "MONOCHROME1"

    @property
    def has_voi(self) -> bool:
        """True when a window or VOI LUT says which values matter."""
        return self.window is not None or self.voi_lut is not None

    def problem(self) -> str | None:
        """Return what makes these facts impossible, in words without any value, or None."""
        if self.interpretation not in ("MONOCHROME1", "MONOCHROME2"):
            return "the photometric interpretation is neither MONOCHROME1 nor MONOCHROME2"
        if not 1 <= self.bits_stored <= 32:
            return "bits stored is not in 1 to 32"
        if self.presentation_lut_shape not in (None, "INVERSE" if self.inverted else "IDENTITY"):
            return "photometric interpretation and presentation LUT shape disagree (PS3.3 C.8.11.3.1.2)"
        if self.voi_function not in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
            return "the VOI LUT function is not one of PS3.3 C.11.2.1.2 and C.11.2.1.3"
        tables = (table.problem() for table in (self.modality_lut, self.voi_lut) if table is not None)
        return self._rescale_problem() or self._window_problem() or next(filter(None, tables), None)

    def _rescale_problem(self) -> str | None:
        if not (math.isfinite(self.rescale_slope) and math.isfinite(self.rescale_intercept)):
            return "rescale slope or intercept is not finite"
        if self.rescale_slope == 0 or not 1e-30 < abs(self.rescale_slope) < 1e30:
            return "the rescale slope is zero or absurd"
        # A slope that vanishes beside the intercept in doubles would make steps of many levels.
        absurd = abs(self.rescale_intercept) > 2**45 * abs(self.rescale_slope)
        return "the rescale intercept is absurd" if absurd else None

    def _window_problem(self) -> str | None:
        if self.window is None or self.voi_lut is not None:
            return None
        center, width = self.window
        if not (math.isfinite(center) and math.isfinite(width) and abs(center) < 1e30 and abs(width) < 1e30):
            return "the window is not finite"
        if width <= 0 or (self.voi_function == "LINEAR" and width < 1):
            return "the window width is below the least value of PS3.3 C.11.2.1.2"
        return None
