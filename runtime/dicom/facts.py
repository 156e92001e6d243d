"""From tags to facts: the pixel format, the photometric facts of a frame, and what results may name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from promptray.runtime.dicom.photometric import LookupTable, Photometric
from promptray.runtime.dicom.quiet import quietly
from promptray.runtime.dicom.tags import element_value, integer, items, numbers, required, text, unreadable
from promptray.runtime.errors import ImageError
from promptray.runtime.limits import check_size


@dataclass(frozen=True)
class PixelFormat:
    """How the pixels are stored (PS3.3 C.7.6.3): checked, so that a decoder may trust it."""

    rows: int
    columns: int
    frames: int
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    photometric: str

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame."""
        return self.rows * self.columns * self.bits_allocated // 8


def pixel_format(dataset: Dataset) -> PixelFormat:
    """Return the pixel format of a grey image; refuse colour and what no grey image can have."""
    photometric = text(dataset, "PhotometricInterpretation")
    if photometric is None:
        raise unreadable("PhotometricInterpretation", "is absent, so black and white are unknown")
    samples = integer(dataset, "SamplesPerPixel")
    if photometric not in ("MONOCHROME1", "MONOCHROME2") or samples not in (None, 1):
        raise ImageError(
            "image.colour",
            "the DICOM image is in colour",
            expected="MONOCHROME1 or MONOCHROME2 with one sample per pixel",
            cure="choose the grey radiograph of the study",
        )
    rows, columns = required(dataset, "Rows"), required(dataset, "Columns")
    allocated, stored = required(dataset, "BitsAllocated"), required(dataset, "BitsStored")
    high_bit = integer(dataset, "HighBit")
    high_bit = stored - 1 if high_bit is None else high_bit
    representation, frames = integer(dataset, "PixelRepresentation"), integer(dataset, "NumberOfFrames")
    if allocated == 1:
        raise ImageError(
            "dicom.tags",
            "the pixels are single bits: a mask or segmentation, not an exposed film",
            expected="8, 16 or 32 bits allocated",
            cure="choose the radiograph that the mask was drawn on",
        )
    if allocated not in (8, 16, 32) or not 1 <= stored <= allocated or not stored - 1 <= high_bit < allocated:
        raise unreadable("BitsAllocated, BitsStored or HighBit", "is not one of a grey image")
    check_size(rows, columns, allocated // 8)
    if representation not in (None, 0, 1) or not 1 <= (1 if frames is None else frames) <= 1_000_000:
        raise unreadable("PixelRepresentation or NumberOfFrames", "is impossible")
    return PixelFormat(
        rows, columns, frames or 1, allocated, stored, high_bit, representation == 1, photometric
    )


def check_has_pixels(dataset: Dataset) -> None:
    """Refuse an object without integer pixel data: a report, a plan, a directory, a parametric map."""
    if "PixelData" in dataset:
        return
    floating = "FloatPixelData" in dataset or "DoubleFloatPixelData" in dataset
    raise ImageError(
        "dicom.no-pixels",
        "the DICOM object holds floating-point pixels" if floating else "the DICOM object holds no image",
        expected="integer Pixel Data (7FE0,0010)",
        cure="choose an image object: reports, plans, waveforms and directories have no score",
    )


def photometric_facts(dataset: Dataset, pixels: PixelFormat, index: int) -> Photometric:
    """Return what the stored values of a frame mean.

    Enhanced objects state rescale and window per frame, or shared (C.7.6.16); both are looked up before
    the data set itself. Of several windows the first is taken, of several LUTs the first item.
    """
    _check_per_frame_groups(dataset, pixels.frames)
    rescale = _macro(dataset, "PixelValueTransformationSequence", index)
    voi = _macro(dataset, "FrameVOILUTSequence", index)
    big_endian = dataset.original_encoding[1] is False
    modality_lut = _table(dataset, "ModalityLUTSequence", signed=pixels.signed, big_endian=big_endian)
    slope = _single(rescale, "RescaleSlope", 1.0)
    intercept = _single(rescale, "RescaleIntercept", 0.0)
    if modality_lut is not None and (slope, intercept) != (1.0, 0.0):
        raise unreadable("ModalityLUTSequence", "stands beside a rescale, and only one of them may (C.11.1)")
    if items(dataset, "PresentationLUTSequence"):
        raise unreadable("PresentationLUTSequence", "belongs to a presentation state, not to an image")
    negative = modality_lut is None and _least(pixels, slope, intercept) < 0
    facts = Photometric(
        interpretation=pixels.photometric,  # type: ignore[arg-type]
        bits_stored=pixels.bits_stored,
        signed=pixels.signed,
        rescale_slope=slope,
        rescale_intercept=intercept,
        modality_lut=modality_lut,
        window=_window(voi),
        voi_function=text(voi, "VOILUTFunction") or "LINEAR",  # type: ignore[arg-type]
        voi_lut=_table(voi, "VOILUTSequence", signed=negative, big_endian=big_endian),
        padding=_padding(dataset, pixels),
        presentation_lut_shape=text(dataset, "PresentationLUTShape"),  # type: ignore[arg-type]
    )
    problem = facts.problem()
    if problem:
        raise ImageError("dicom.tags", problem, cure="have the object's header corrected")
    return facts


def pixel_spacing(dataset: Dataset, index: int) -> tuple[tuple[float, float] | None, str | None]:
    """Return (row, column) spacing in mm and the attribute it came from; (None, None) without any."""
    measures = _macro(dataset, "PixelMeasuresSequence", index)
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        spacing = numbers(measures if keyword == "PixelSpacing" else dataset, keyword)
        if len(spacing) == 2 and min(spacing) > 0:
            return (spacing[0], spacing[1]), keyword
    return None, None


def _check_per_frame_groups(dataset: Dataset, frames: int) -> None:
    """Refuse functional groups that leave a frame out, or are of other frames (C.7.6.16.1.1)."""
    sequence = "PerFrameFunctionalGroupsSequence"
    if sequence in dataset and len(items(dataset, sequence)) != frames:
        raise unreadable(sequence, "does not hold one item for each frame")


def _macro(dataset: Dataset, sequence: str, index: int) -> Dataset:
    """Return where a functional group of a frame is stated: per frame, else shared, else the data set."""
    per_frame = items(dataset, "PerFrameFunctionalGroupsSequence")
    groups = per_frame[index : index + 1] + items(dataset, "SharedFunctionalGroupsSequence")[:1]
    found = (items(group, sequence)[:1] for group in groups)
    return next((entries[0] for entries in found if entries), dataset)


def _single(dataset: Dataset, keyword: str, default: float) -> float:
    values = numbers(dataset, keyword)
    if len(values) > 1:
        raise unreadable(keyword, "holds several values")
    return values[0] if values else default


def _window(dataset: Dataset) -> tuple[float, float] | None:
    centers, widths = numbers(dataset, "WindowCenter"), numbers(dataset, "WindowWidth")
    if len(centers) != len(widths):
        raise unreadable("WindowCenter or WindowWidth", "is missing its counterpart")
    return (centers[0], widths[0]) if centers else None


def _least(pixels: PixelFormat, slope: float, intercept: float) -> float:
    bits = pixels.bits_stored
    ends = (-(1 << bits - 1), (1 << bits - 1) - 1) if pixels.signed else (0, (1 << bits) - 1)
    return min(slope * end + intercept for end in ends)


def _padding(dataset: Dataset, pixels: PixelFormat) -> tuple[int, int] | None:
    """Return the padding range as stored values; the VR of these tags is often the wrong one of US, SS."""
    value = integer(dataset, "PixelPaddingValue")
    if value is None:
        return None
    limit = integer(dataset, "PixelPaddingRangeLimit")
    if limit is not None and not pixels.signed and (value < 0) != (limit < 0):
        raise unreadable("PixelPaddingRangeLimit", "spans zero, and the pixels are unsigned")
    ends = [_as_signed(end, pixels.signed) for end in (value, value if limit is None else limit)]
    return min(ends), max(ends)


def _as_signed(value: int, signed: bool) -> int:
    """Return a 16-bit pattern as the signed or unsigned number it stands for."""
    value &= 0xFFFF
    return value - 0x10000 if signed and value >= 0x8000 else value


def _table(dataset: Dataset, sequence: str, *, signed: bool, big_endian: bool) -> LookupTable | None:
    """Return the first table of a LUT sequence; `signed` says whether its input values can be negative."""
    entries = items(dataset, sequence)
    if not entries:
        return None
    descriptor, data = numbers(entries[0], "LUTDescriptor"), element_value(entries[0], "LUTData")
    if not descriptor and data is None:
        return None  # an item of empty elements, as some film scanners write it, states no table
    if len(descriptor) != 3:
        raise unreadable("LUTDescriptor", "does not hold three numbers")
    count, first, bits = (int(number) for number in descriptor)
    count = count & 0xFFFF or 65536  # 0 stands for 65536 (C.11.1.1)
    words = _lut_words(data, count, bits, big_endian=big_endian)
    if words.size != count:
        raise unreadable("LUTData", "does not hold as many entries as its descriptor states")
    return LookupTable(_as_signed(first, signed), words, bits)


def _lut_words(data: Any, count: int, bits: int, *, big_endian: bool) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """Return LUT entries from packed bytes (8 or 16 bits each, OW) or from numbers (US, SS)."""
    if isinstance(data, (bytes, bytearray)):
        if bits == 8 and len(data) in (count, count + count % 2):
            return np.frombuffer(data, np.uint8, count).astype(np.uint16)
        whole = data[: len(data) // 2 * 2]
        return np.frombuffer(whole, ">u2" if big_endian else "<u2").astype(np.uint16)
    many = [] if data is None else [data] if isinstance(data, int) else data
    wide = quietly(lambda: np.array([int(one) for one in many], np.int64), lambda: unreadable("LUTData"))
    return (wide & 0xFFFF).astype(np.uint16)
