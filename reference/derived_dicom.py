"""Write a grey picture as a DICOM radiograph that is plainly marked as derived.

The encodings differ on purpose, so that the samples exercise the chain from stored value to grey. Each of
them shows, through its window, exactly the grey values of the picture it was made from.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from reference.radiographs import ATTRIBUTION, LICENCE

_SOP_CLASSES = {"CR": ComputedRadiographyImageStorage, "DX": DigitalXRayImageStorageForPresentation}


@dataclass(frozen=True)
class Encoding:
    """How grey values are stored.

    Attributes
    ----------
    modality : str
        CR or DX.
    bits : int
        Bits stored; more than 8 are allocated 16.
    monochrome1 : bool
        Least value is white, so the stored values are inverted.
    intercept : int
        Rescale intercept (slope 1); the stored values are raised by as much.
    """

    modality: str
    bits: int
    monochrome1: bool = False
    intercept: int = 0

    @property
    def step(self) -> int:
        """Stored values per grey value: what the rescale leaves room for."""
        return (2**self.bits - 1 + self.intercept) // 255

    def __str__(self) -> str:
        """Say it for the attribution table."""
        order = "MONOCHROME1 (inverted)" if self.monochrome1 else "MONOCHROME2"
        rescale = f", rescale intercept {self.intercept}" if self.intercept else ""
        return f"{self.modality}, {order}, {self.bits} bits{rescale}"


ENCODINGS = (
    Encoding("CR", 8),
    Encoding("DX", 12),
    Encoding("DX", 12, monochrome1=True),
    Encoding("CR", 12, intercept=-1024),
    Encoding("DX", 14),
    Encoding("CR", 10),
)


def write_dicom(grey: NDArray[np.uint8], path: Path, encoding: Encoding, name: str) -> None:
    """Write a picture (rows, columns); ``name`` decides the UIDs, so the same call writes the same bytes."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = _SOP_CLASSES[encoding.modality]
    meta.MediaStorageSOPInstanceUID = derived_uid(name, "instance")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)  # type: ignore[arg-type]
    _identify(dataset, encoding, name)
    _store(dataset, encoding, grey)
    dataset.save_as(path, enforce_file_format=True)


def derived_uid(name: str, level: str) -> UID:
    """Derive a UID under 2.25 from a name (PS3.5 B.2: a 128-bit number)."""
    digest = hashlib.sha256(f"promptray sample {name} {level}".encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")


def _identify(dataset: FileDataset, encoding: Encoding, name: str) -> None:
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.ImageType = ["DERIVED", "PRIMARY"]
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID
    dataset.StudyInstanceUID = derived_uid(name, "study")
    dataset.SeriesInstanceUID = derived_uid(name, "series")
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = dataset.StudyID = ""
    dataset.Modality = encoding.modality
    dataset.ConversionType = "WSD"
    dataset.Manufacturer = ""
    dataset.ReferringPhysicianName = ""
    dataset.PatientName = "ANON^SAMPLE"
    dataset.PatientID = f"SAMPLE-{name}"
    dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.PatientIdentityRemoved = "YES"
    dataset.DeidentificationMethod = "Published without identity; see DerivationDescription"
    dataset.BodyPartExamined = "CHEST"
    dataset.ViewPosition = "AP"
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.PatientOrientation = ""
    dataset.DerivationDescription = (
        f"Made from a published JPEG, for software tests only. Grey values rewritten as {encoding}. "
        f"Licence {LICENCE}. {ATTRIBUTION}"
    )
    dataset.LossyImageCompression = "01"  # the published image was a JPEG
    dataset.BurnedInAnnotation = "NO"
    if encoding.modality == "DX":
        dataset.PresentationIntentType = "FOR PRESENTATION"


def _store(dataset: FileDataset, encoding: Encoding, grey: NDArray[np.uint8]) -> None:
    largest = 2**encoding.bits - 1
    stored = grey.astype(np.int32) * encoding.step - encoding.intercept
    if encoding.monochrome1:
        stored = largest - stored
    allocated = 8 if encoding.bits <= 8 else 16
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if encoding.monochrome1 else "MONOCHROME2"
    dataset.Rows, dataset.Columns = grey.shape
    dataset.BitsAllocated = allocated
    dataset.BitsStored = encoding.bits
    dataset.HighBit = encoding.bits - 1
    dataset.PixelRepresentation = 0
    dataset.RescaleIntercept = encoding.intercept
    dataset.RescaleSlope = 1
    dataset.RescaleType = "US"
    if encoding.modality == "DX":
        dataset.PresentationLUTShape = "INVERSE" if encoding.monochrome1 else "IDENTITY"
    # PS3.3 C.11.2.1.2: LINEAR takes c - 0.5 - (w - 1) / 2 to black and c - 0.5 + (w - 1) / 2 to white.
    span = 255 * encoding.step
    lowest = largest - span if encoding.monochrome1 else 0
    dataset.WindowCenter = lowest + span / 2 + 0.5
    dataset.WindowWidth = span + 1
    dataset.VOILUTFunction = "LINEAR"
    pixels = stored.astype(f"<u{allocated // 8}").tobytes()
    dataset.PixelData = pixels + b"\0" * (len(pixels) % 2)
