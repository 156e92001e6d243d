"""Stored values of one frame: integers as the modality wrote them, nothing rescaled or inverted.

Which decoder reads which transfer syntax is the table :data:`DECODERS`. Each is permissively licensed;
pylibjpeg-libjpeg (GPL-3.0) is never used, even where it is installed, so 12-bit and lossless JPEG of more
than 8 bits are refused. Before a decoder sees a compressed frame, the frame's own header must repeat the
size that the data set states, and the frame must end with its end marker.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder

from promptray.runtime.dicom import tags
from promptray.runtime.dicom.facts import PixelFormat
from promptray.runtime.dicom.quiet import quietly
from promptray.runtime.dicom.rle import decode_rle
from promptray.runtime.errors import ImageError
from promptray.runtime.image_file import decode_strict_jpeg
from promptray.runtime.jpeg_markers import MAX_SCANS, FrameHeader, read_frame_header, read_j2k_header

Stored = NDArray[np.integer]

#: EOI of JPEG and JPEG-LS, EOC of JPEG 2000.
_END = b"\xff\xd9"


def stored_values(dataset: Dataset, syntax: uid.UID, pixels: PixelFormat, index: int) -> Stored:
    """Decode one frame.

    Parameters
    ----------
    dataset : Dataset
        Holds PixelData.
    syntax : UID
        Its transfer syntax.
    pixels : PixelFormat
        From :func:`promptray.runtime.dicom.facts.pixel_format`.
    index : int
        Frame, counted from 0.

    Returns
    -------
    ndarray of (u)int8, (u)int16 or (u)int32, shape (rows, columns)
        Sign-extended; bits outside bits stored (overlays, PS3.5 8.1.1) removed. May be a read-only view.

    Raises
    ------
    ImageError
        `dicom.transfer-syntax` or `image.broken`.
    """
    decode = DECODERS.get(syntax)
    if decode is None:
        raise _unsupported(syntax, "no decoder of the edge install reads it")
    data = tags.element_value(dataset, "PixelData")
    if not isinstance(data, (bytes, bytearray)):
        raise _broken("the pixel data are missing or not bytes")
    if syntax == uid.ExplicitVRBigEndian and pixels.bits_allocated == 8 and _vr(dataset) == "OW":
        data = np.frombuffer(data[: len(data) // 2 * 2], np.uint16).byteswap().tobytes()
    words = decode(bytes(data), syntax, pixels, index)
    if words.shape != (pixels.rows, pixels.columns):
        raise _broken("the decoded frame has another size than the header states")
    return words


def _vr(dataset: Dataset) -> str:
    return quietly(lambda: str(dataset["PixelData"].VR), lambda: tags.unreadable("PixelData"))


def _native(data: bytes, syntax: uid.UID, pixels: PixelFormat, index: int) -> Stored:
    """View an uncompressed frame (PS3.5 8.1.1, A.1 to A.3)."""
    start, excess = index * pixels.frame_bytes, len(data) - pixels.frames * pixels.frame_bytes
    if excess < 0:
        raise _broken("the pixel data end before the last row")
    # Some writers pad to more than an even length; a whole row or column too many: a size tag lies.
    if excess >= pixels.frame_bytes // max(pixels.rows, pixels.columns):
        raise _broken("the pixel data hold more than rows, columns and frames allow")
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    size = pixels.bits_allocated // 8
    words = np.frombuffer(data, f"{order}u{size}", pixels.rows * pixels.columns, start)
    return _significant(words.astype(f"=u{size}", copy=False), pixels).reshape(pixels.rows, pixels.columns)


def _significant(words: NDArray[np.unsignedinteger], pixels: PixelFormat) -> Stored:
    """Cut the stored bits out of their container and extend the sign."""
    above = pixels.bits_allocated - 1 - pixels.high_bit
    beside = pixels.bits_allocated - pixels.bits_stored
    if pixels.signed:
        signed = words.view(f"i{words.dtype.itemsize}")
        return (words << above).view(signed.dtype) >> beside if beside else signed
    if beside and (above != beside or words.max() >> pixels.bits_stored):
        return (words << above) >> beside
    return words


def _plugin(name: str) -> Callable[[bytes, uid.UID, PixelFormat, int], Stored]:
    def decode(data: bytes, syntax: uid.UID, pixels: PixelFormat, index: int) -> Stored:
        frame = _frame(data, pixels, index)
        header = read_j2k_header(frame) if syntax in _J2K else read_frame_header(frame)
        _check_frame(frame, header, pixels)
        return _decoded(name, data, syntax, pixels, index)

    return decode


def _decoded(plugin: str, data: bytes, syntax: uid.UID, pixels: PixelFormat, index: int) -> Stored:
    """Decode with pydicom and the named plugin; the facts given to it are those already checked."""
    options: dict[str, Any] = {
        "rows": pixels.rows,
        "columns": pixels.columns,
        "number_of_frames": pixels.frames,
        "samples_per_pixel": 1,
        "photometric_interpretation": pixels.photometric,
        "bits_allocated": pixels.bits_allocated,
        "bits_stored": pixels.bits_stored,
        "pixel_representation": int(pixels.signed),
        "pixel_keyword": "PixelData",
    }
    words, _ = quietly(
        lambda: get_decoder(syntax).as_array(data, index=index, raw=True, decoding_plugin=plugin, **options),
        lambda: _broken("the compressed frame cannot be decoded"),
    )
    stored: Stored = words
    return stored


def _rle(data: bytes, syntax: uid.UID, pixels: PixelFormat, index: int) -> Stored:
    """Decode RLE, which keeps whole containers, overlay bits included."""
    frame = _frame(data, pixels, index)
    words = decode_rle(frame, pixels.rows * pixels.columns, pixels.bits_allocated // 8)
    if words is None:
        raise _broken("the RLE frame is damaged or ends early")
    return _significant(words, pixels).reshape(pixels.rows, pixels.columns)


def _jpeg(data: bytes, syntax: uid.UID, pixels: PixelFormat, index: int) -> Stored:
    """Decode JPEG of 8 bits with libjpeg-turbo, which treats every irregularity as an error."""
    frame = _frame(data, pixels, index)
    header = read_frame_header(frame)
    if header is not None and (header.precision != 8 or pixels.bits_allocated != 8):
        raise _unsupported(syntax, f"JPEG of {header.precision} bits needs a decoder that is not shipped")
    _check_frame(frame, header, pixels)
    grey = decode_strict_jpeg(frame) if frame.count(b"\xff\xda") <= MAX_SCANS else None
    if grey is None:
        raise _broken("the JPEG frame cannot be decoded completely")
    return grey.view(np.int8) if pixels.signed else grey


def _frame(data: bytes, pixels: PixelFormat, index: int) -> bytes:
    frame: bytes = quietly(
        lambda: get_frame(data, index, number_of_frames=pixels.frames),
        lambda: _broken("the compressed frame is missing or its fragments are damaged"),
    )
    return frame


def _check_frame(frame: bytes, header: FrameHeader | None, pixels: PixelFormat) -> None:
    """Refuse a code stream that ends early or whose own header contradicts the data set."""
    if header is None:
        raise _broken("the compressed frame has no readable header")
    if (header.rows, header.columns, header.components) != (pixels.rows, pixels.columns, 1):
        raise _broken("the compressed frame's own header contradicts rows, columns or samples")
    if header.precision > pixels.bits_allocated:
        raise _broken("the compressed frame is deeper than bits allocated")
    # Fragments have even lengths: one pad byte, which some writers leave undefined, may follow the end.
    if _END not in frame.rstrip(b"\0")[-3:]:
        raise _broken("the compressed frame ends early")


def _broken(message: str) -> ImageError:
    return ImageError("image.broken", message, cure="export the object again from its archive")


def _unsupported(syntax: uid.UID, why: str) -> ImageError:
    known = syntax.name if syntax in uid.AllTransferSyntaxes else "not a transfer syntax of the standard"
    return ImageError(
        "dicom.transfer-syntax",
        f"the transfer syntax cannot be decoded: {why}",
        expected="uncompressed, RLE, JPEG of 8 bits, JPEG-LS, JPEG 2000 or HTJ2K",
        found=known,
        cure="let the archive send it as Explicit VR Little Endian",
    )


_J2K = frozenset(
    {
        uid.JPEG2000Lossless,
        uid.JPEG2000,
        uid.HTJ2KLossless,
        uid.HTJ2KLosslessRPCL,
        uid.HTJ2K,
    }
)

#: Transfer syntax to decoder. Uncompressed ones first; a new syntax is a row.
DECODERS: dict[str, Callable[[bytes, uid.UID, PixelFormat, int], Stored]] = {
    uid.ImplicitVRLittleEndian: _native,
    uid.ExplicitVRLittleEndian: _native,
    uid.DeflatedExplicitVRLittleEndian: _native,
    uid.ExplicitVRBigEndian: _native,
    uid.RLELossless: _rle,
    uid.JPEGLSLossless: _plugin("pyjpegls"),
    uid.JPEGLSNearLossless: _plugin("pyjpegls"),
    **dict.fromkeys(_J2K, _plugin("pylibjpeg")),
    uid.JPEGBaseline8Bit: _jpeg,
    uid.JPEGExtended12Bit: _jpeg,
    uid.JPEGLossless: _jpeg,
    uid.JPEGLosslessSV1: _jpeg,
}
