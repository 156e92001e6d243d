"""The grey scale of one pixel by PS3.3 C.7.5, C.7.6.3 and C.11, in exact fractions, one pixel at a time.

Written from the text of the standard and from drawn tag values, without the code under test: a mistake that
the reference chain and the fast chain share shows here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from pydicom.dataset import Dataset

#: How near to a rounding border, or to a threshold, the result is left open.
NEAR = Fraction(1, 10**6)


@dataclass(frozen=True)
class Table:
    """An item of a Modality or VOI LUT Sequence."""

    first: int
    entries: list[int]
    bits: int
    packed: bool

    def look_up(self, value: Fraction) -> int:
        """C.11.1.1.1: below the first value mapped the first entry, above the last one the last."""
        index = math.floor(value) - self.first
        return self.entries[min(max(index, 0), len(self.entries) - 1)]

    def item(self) -> Dataset:
        item = Dataset()
        descriptor = [len(self.entries) % 65536, self.first, self.bits]
        item.add_new("LUTDescriptor", "SS" if self.first < 0 else "US", descriptor)
        size = 1 if self.packed and self.bits == 8 else 2
        data = b"".join(entry.to_bytes(size, "little") for entry in self.entries)
        if self.packed:
            item.add_new("LUTData", "OW", data + b"\0" * (len(data) % 2))
        else:
            item.add_new("LUTData", "US", self.entries)
        return item


@dataclass(frozen=True)
class Film:
    """The tag values that decide what a grey image looks like. Numbers as the decimal strings of the file."""

    interpretation: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    rescale: tuple[str, str] | None
    modality_lut: Table | None
    windows: list[tuple[str, str]]
    function: str | None
    voi_lut: Table | None
    padding: int | None
    padding_limit: int | None
    shape: str | None
    #: Where rescale and window are stated: in the data set, for all frames, or for this frame.
    place: str

    def stored(self, word: int) -> int:
        """PS3.5 8.1.1: the bits stored end at the high bit; those above and below are something else."""
        value = word >> (self.high_bit + 1 - self.bits_stored) & ((1 << self.bits_stored) - 1)
        sign = 1 << (self.bits_stored - 1)
        return value - 2 * sign if self.signed and value & sign else value

    def is_padding(self, stored: int) -> bool:
        """C.7.5.1.1.2: the value, or the inclusive range between it and its limit, whichever is greater."""
        if self.padding is None:
            return False
        limit = self.padding if self.padding_limit is None else self.padding_limit
        return min(self.padding, limit) <= stored <= max(self.padding, limit)

    def modality(self, stored: int) -> Fraction:
        """C.11.1."""
        if self.modality_lut is not None:
            return Fraction(self.modality_lut.look_up(Fraction(stored)))
        slope, intercept = self.rescale or ("1", "0")
        return Fraction(slope) * stored + Fraction(intercept)

    def presented(self, value: Fraction, least: Fraction, greatest: Fraction) -> list[Fraction]:
        """C.11.2, from 0 to 255; two values on a threshold, where floating point may take either side."""
        if self.voi_lut is not None:
            return [Fraction(255 * self.voi_lut.look_up(value), 2**self.voi_lut.bits - 1)]
        if not self.windows:
            return [255 * (value - least) / (greatest - least)]
        c, w = map(Fraction, self.windows[0])
        if self.function == "SIGMOID":
            exponent = float(-4 * (value - c) / w)
            return [Fraction(0) if exponent > 600 else Fraction(255 / (1 + math.exp(exponent)))]
        if self.function == "LINEAR_EXACT":
            low, high, inside = c - w / 2, c + w / 2, (value - c) / w + Fraction(1, 2)
        else:
            low, high = c - Fraction(1, 2) - (w - 1) / 2, c - Fraction(1, 2) + (w - 1) / 2
            inside = (value - (c - Fraction(1, 2))) / (w - 1) + Fraction(1, 2) if w != 1 else Fraction(0)
        if w == 1 and low == high and abs(value - low) < NEAR:
            return [Fraction(0), Fraction(255)]
        return [Fraction(0) if value <= low else Fraction(255) if value > high else 255 * inside]

    def grey(self, words: list[int]) -> list[set[int]] | None:
        """The possible grey of each pixel (two on a rounding border); None where no contrast is defined."""
        stored = [self.stored(word) for word in words]
        image = [self.modality(value) for value in stored if not self.is_padding(value)]
        if not (self.windows or self.voi_lut) and len(set(image)) < 2:
            return None
        ends = (min(image), max(image)) if image else (Fraction(0), Fraction(1))
        return [
            {0} if self.is_padding(value) else self._rounded(self.presented(self.modality(value), *ends))
            for value in stored
        ]

    def _rounded(self, shown: list[Fraction]) -> set[int]:
        inverse = self.interpretation == "MONOCHROME1"  # C.7.6.3.1.2: the minimum is displayed as white
        levels = [255 - value if inverse else value for value in shown]
        return {math.floor(level + Fraction(1, 2) + near) for level in levels for near in (-NEAR, NEAR)}

    def tags(self) -> dict[str, Any]:
        """The changes to make to a data set; None removes a tag."""
        rescale = dict(zip(("RescaleSlope", "RescaleIntercept"), self.rescale or (), strict=False))
        centers, widths = ([list(each) for each in zip(*self.windows, strict=True)] or [None, None])[:2]
        window = {"WindowCenter": centers, "WindowWidth": widths, "VOILUTFunction": self.function}
        changes: dict[str, Any] = {
            "PhotometricInterpretation": self.interpretation,
            "BitsStored": self.bits_stored,
            "HighBit": self.high_bit,
            "PixelRepresentation": int(self.signed),
            "PresentationLUTShape": self.shape,
            "WindowCenter": None,
            "WindowWidth": None,
        }
        if self.modality_lut is not None:
            changes["ModalityLUTSequence"] = [self.modality_lut.item()]
        if self.place == "data set":
            changes |= rescale | window
            changes["VOILUTSequence"] = self.voi_lut and [self.voi_lut.item()]
            return changes
        group = Dataset()
        if rescale:
            group.PixelValueTransformationSequence = [_item(rescale)]
        if self.windows or self.voi_lut is not None:
            group.FrameVOILUTSequence = [_item(window)]
            if self.voi_lut is not None:
                group.FrameVOILUTSequence[0].VOILUTSequence = [self.voi_lut.item()]
        both = {"shared": ([group], [Dataset()]), "frame": ([Dataset()], [group])}
        changes["SharedFunctionalGroupsSequence"], changes["PerFrameFunctionalGroupsSequence"] = both[
            self.place
        ]
        return changes


def _item(values: dict[str, Any]) -> Dataset:
    item = Dataset()
    for keyword, value in values.items():
        if value is not None:
            setattr(item, keyword, value)
    return item
