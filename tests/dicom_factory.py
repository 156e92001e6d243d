"""DICOM objects made for tests: one small grey image, with any tag changed, as bytes."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from promptray.runtime.bundle.image_rules import Door

CHEST = Door(modalities=["CR", "DX"], refused_body_parts=["BREAST"])

#: Planted in every object; must never come out of the runtime.
NAME = "PLANTED^PATIENT"
CR_IMAGE = "1.2.840.10008.5.1.4.1.1.1"


def ramp(rows: int = 40, columns: int = 48, bits: int = 12) -> NDArray[np.uint16]:
    """A picture whose values cover all stored bits and whose middle is not dark."""
    values = np.linspace(0, (1 << bits) - 1, rows * columns).astype(np.uint16)
    return values.reshape(rows, columns)


def dataset(pixels: NDArray[Any] | None = None, **changes: Any) -> Dataset:
    """A complete CR object of 12 stored bits; a change of None deletes the tag."""
    pixels = ramp() if pixels is None else pixels
    made = Dataset()
    tags: dict[str, Any] = {
        "SOPClassUID": CR_IMAGE,
        "SOPInstanceUID": "1.2.3.1",
        "StudyInstanceUID": "1.2.3.2",
        "SeriesInstanceUID": "1.2.3.3",
        "Modality": "CR",
        "BodyPartExamined": "CHEST",
        "PatientName": NAME,
        "PatientID": NAME,
        "SeriesDescription": NAME,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "BitsAllocated": 8 * pixels.dtype.itemsize,
        "BitsStored": min(12, 8 * pixels.dtype.itemsize),
        "HighBit": min(12, 8 * pixels.dtype.itemsize) - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "WindowCenter": 2048,
        "WindowWidth": 4096,
    }
    for keyword, value in {**tags, **changes}.items():
        if value is not None:
            setattr(made, keyword, value)
    if pixels.ndim == 3:
        made.NumberOfFrames = pixels.shape[0]
    made.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    made["PixelData"].VR = "OW" if pixels.dtype.itemsize > 1 else "OB"
    return made


def encode(made: Dataset, syntax: UID = ExplicitVRLittleEndian, sop_class: str = CR_IMAGE) -> bytes:
    """The object as a file with preamble and file meta information."""
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = sop_class
    made.file_meta.MediaStorageSOPInstanceUID = "1.2.3.1"
    made.file_meta.TransferSyntaxUID = syntax
    stream = io.BytesIO()
    made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def encode_bare(made: Dataset, *, implicit: bool = True) -> bytes:
    """The data set alone: no preamble, no file meta information."""
    stream = io.BytesIO()
    made.save_as(stream, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
    return stream.getvalue()


def file(pixels: NDArray[Any] | None = None, **changes: Any) -> bytes:
    """`dataset` and `encode` in one."""
    return encode(dataset(pixels, **changes))


__all__ = [
    "CHEST",
    "NAME",
    "ExplicitVRBigEndian",
    "ImplicitVRLittleEndian",
    "dataset",
    "encode",
    "encode_bare",
    "file",
    "ramp",
]


def coded(value: str | None, scheme: str | None = "SCT", meaning: str | None = None) -> list[Dataset]:
    """A code sequence of one item."""
    item = Dataset()
    for keyword, text in (("CodeValue", value), ("CodingSchemeDesignator", scheme), ("CodeMeaning", meaning)):
        if text is not None:
            setattr(item, keyword, text)
    return [item]
