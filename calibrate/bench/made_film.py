"""Films of any size and transfer syntax, made of one picture: what a sweep scores.

The picture's grey is resized, and moved to the upper 8 of 12 bits; the lower four are seeded noise, without
which compressed films would be smaller, and quicker to decode, than any that a detector makes.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Transfer syntaxes by name; those of bits above 12 have an encoder in the edge install.
SYNTAXES: dict[str, str] = {
    "Explicit VR Little Endian": "1.2.840.10008.1.2.1",
    "Deflated Explicit VR Little Endian": "1.2.840.10008.1.2.1.99",
    "JPEG Baseline, 8 bits": "1.2.840.10008.1.2.4.50",
    "JPEG-LS Lossless": "1.2.840.10008.1.2.4.80",
    "JPEG 2000 Lossless": "1.2.840.10008.1.2.4.90",
    "RLE Lossless": "1.2.840.10008.1.2.5",
}
#: Those that nothing in the edge install writes.
NO_ENCODER = ("JPEG Lossless SV1", "HTJ2K Lossless")
_BASELINE = SYNTAXES["JPEG Baseline, 8 bits"]
_CLASSES = {"MG": "1.2.840.10008.5.1.4.1.1.1.2", "DX": "1.2.840.10008.5.1.4.1.1.1.1"}
_CR_IMAGE = "1.2.840.10008.5.1.4.1.1.1"


def film(grey: NDArray[np.uint8], rows: int, columns: int, seed: int) -> NDArray[np.uint16]:
    """Return a film of 12 bits, uint16 (rows, columns), of a picture's grey, uint8 (any, any)."""
    resized = np.asarray(Image.fromarray(grey).resize((columns, rows), Image.Resampling.BILINEAR), np.uint16)
    noise = np.random.default_rng(seed).integers(0, 16, resized.shape, np.uint16)
    return (resized << 4) | noise


def dicom(pixels: NDArray[np.uint16], syntax: str, modality: str) -> bytes:
    """Return a film of 12 bits as a DICOM object; of JPEG Baseline its upper 8 bits.

    Parameters
    ----------
    pixels : uint16 (rows, columns)
    syntax : str
        UID of :data:`SYNTAXES`.
    modality : str
        As a door takes it.
    """
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID, ExplicitVRLittleEndian

    shallow = syntax == _BASELINE
    bits = 8 if shallow else 12
    made = Dataset()
    made.SOPClassUID = _CLASSES.get(modality, _CR_IMAGE)
    made.SOPInstanceUID = made.StudyInstanceUID = made.SeriesInstanceUID = "2.25.1"
    made.Modality = modality
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = pixels.shape
    made.BitsAllocated, made.BitsStored, made.HighBit = (8 if shallow else 16), bits, bits - 1
    made.PixelRepresentation = 0
    made.WindowCenter, made.WindowWidth = 1 << (bits - 1), 1 << bits
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    if shallow:
        made.PixelData = encapsulate([_jpeg((pixels >> 4).astype(np.uint8))])
        made["PixelData"].is_undefined_length = True
        made["PixelData"].VR = "OB"
        made.file_meta.TransferSyntaxUID = UID(syntax)
    else:
        made.PixelData = pixels.tobytes()
        made["PixelData"].VR = "OW"
        if UID(syntax).is_encapsulated:
            made.compress(UID(syntax), generate_instance_uid=False)
        else:
            made.file_meta.TransferSyntaxUID = UID(syntax)
    stream = io.BytesIO()
    made.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _jpeg(grey: NDArray[np.uint8]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "JPEG", quality=95)
    return stream.getvalue()
