"""A film of a detector's size in each transfer syntax, made of a small one that may be given away.

Small films are enlarged, which leaves them smoother than any detector: noise of some levels is added, so that
lossless files are about as large, and decoders as busy, as with real ones.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np
import pydicom
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

#: Standard deviation of the added noise, levels of 12 bits: 5 to 6 bits a pixel remain, as in real films.
NOISE = 8.0
_BITS = 12
_CENTRE, _WIDTH = 2048.0, 4096.0


def enlarged(sample: Path, rows: int, columns: int) -> NDArray[np.uint16]:
    """Return a PNG or JPEG as a film of 12 bits, (rows, columns)."""
    small = Image.open(sample).convert("F")
    large = np.asarray(small.resize((columns, rows), Image.Resampling.BICUBIC), np.float64)
    noise = np.random.default_rng(1).normal(0.0, NOISE, large.shape)
    most = (1 << _BITS) - 1
    return np.clip(np.rint(large * (most / 255) + noise), 0, most).astype(np.uint16)


def write_films(
    film: NDArray[np.uint16], folder: Path, syntaxes: Collection[str] | None = None
) -> dict[str, Path]:
    """Write a film of 12 bits in the named transfer syntaxes, by default in all there is an encoder for.

    Returns
    -------
    dict of str to Path
        The files by syntax; ``uncompressed`` is always among them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = {"uncompressed": folder / "uncompressed.dcm"}
    _dataset(film).save_as(written["uncompressed"], enforce_file_format=True)
    for name in _WRITERS if syntaxes is None else syntaxes:
        if name in _WRITERS:
            written[name] = folder / f"{name.replace(' ', '-')}.dcm"
            _WRITERS[name](film, written["uncompressed"], written[name])
    return written


def _dataset(film: NDArray[np.unsignedinteger]) -> Dataset:
    made, bits = Dataset(), _BITS if film.dtype == np.uint16 else 8
    made.SOPClassUID, made.SOPInstanceUID = uid.ComputedRadiographyImageStorage, "1.2.3.1"
    made.StudyInstanceUID, made.SeriesInstanceUID = "1.2.3.2", "1.2.3.3"
    made.Modality, made.BodyPartExamined = "CR", "CHEST"
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = film.shape
    made.BitsAllocated, made.BitsStored, made.HighBit = 8 * film.itemsize, bits, bits - 1
    made.PixelRepresentation = 0
    scale = 1.0 if bits == _BITS else 1 / 16
    made.WindowCenter, made.WindowWidth = _CENTRE * scale, _WIDTH * scale
    made.PixelData = film.tobytes()
    made["PixelData"].VR = "OW" if film.itemsize > 1 else "OB"
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    return made


def _by_pydicom(syntax: uid.UID) -> Callable[[NDArray[np.uint16], Path, Path], None]:
    def write(film: NDArray[np.uint16], plain: Path, path: Path) -> None:
        made = pydicom.dcmread(plain)
        made.compress(syntax, generate_instance_uid=False)
        made.save_as(path)

    return write


def _lossless_jpeg(film: NDArray[np.uint16], plain: Path, path: Path) -> None:
    gdcm = importlib.import_module("gdcm")  # a development dependency; nothing else here encodes it
    reader, change, writer = gdcm.ImageReader(), gdcm.ImageChangeTransferSyntax(), gdcm.ImageWriter()
    reader.SetFileName(str(plain))
    assert reader.Read()
    change.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGLosslessProcess14_1))
    change.SetInput(reader.GetImage())
    assert change.Change()
    writer.SetFileName(str(path))
    writer.SetFile(reader.GetFile())
    writer.SetImage(change.GetOutput())
    assert writer.Write()


def _baseline_jpeg(film: NDArray[np.uint16], plain: Path, path: Path) -> None:
    grey = (film >> _BITS - 8).astype(np.uint8)
    made = _dataset(grey)
    frame = simplejpeg.encode_jpeg(grey[:, :, None], quality=90, colorspace="GRAY", colorsubsampling="Gray")
    made.PixelData = encapsulate([frame])
    made["PixelData"].is_undefined_length = True
    made.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    made.save_as(path, enforce_file_format=True)


def _htj2k(film: NDArray[np.uint16], plain: Path, path: Path) -> None:
    codecs = importlib.import_module("imagecodecs")  # no dependency: nothing that is one encodes it
    made = _dataset(film)
    made.PixelData = encapsulate([codecs.htj2k_encode(film, reversible=True)])
    made["PixelData"].is_undefined_length = True
    made.file_meta.TransferSyntaxUID = uid.HTJ2KLossless
    made.save_as(path, enforce_file_format=True)


_WRITERS: Mapping[str, Callable[[NDArray[np.uint16], Path, Path], None]] = {
    "JPEG 2000 lossless": _by_pydicom(uid.JPEG2000Lossless),
    "JPEG-LS lossless": _by_pydicom(uid.JPEGLSLossless),
    "JPEG lossless": _lossless_jpeg,
    "RLE": _by_pydicom(uid.RLELossless),
    "JPEG baseline, 8 bit": _baseline_jpeg,
    **({"HTJ2K lossless": _htj2k} if importlib.util.find_spec("imagecodecs") else {}),
}
