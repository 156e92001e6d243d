"""Stored values of one frame: integers as the modality wrote them, nothing rescaled or inverted.

Which decoder reads which transfer syntax is the table :data:`DECODERS`. Each is permissively licensed or our
own; pylibjpeg-libjpeg (GPL-3.0) is never used, even where it is installed. Before a decoder sees a compressed
frame, the frame's own header must repeat the size that the data set states, and the frame must end with its
end marker.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels.decoders.base import get_decoder

from promptray.runtime.dicom import j2k_decode
from promptray.runtime.dicom.coding import LOSSLESS, LOSSY, j2k_coding, jpeg_ls_coding
from promptray.runtime.dicom.damage import broken
from promptray.runtime.dicom.facts import PixelFormat
from promptray.runtime.dicom.frame_bytes import NATIVE, frame_bytes
from promptray.runtime.dicom.j2k_stream import check_j2k, j2k_code_stream, read_j2k_header
from promptray.runtime.dicom.jpeg_extended import decode_extended
from promptray.runtime.dicom.jpeg_lossless import decode_lossless
from promptray.runtime.dicom.quiet import quietly
from promptray.runtime.dicom.rle import decode_rle
from promptray.runtime.dicom.stored_bits import decoded_bits, significant
from promptray.runtime.errors import ImageError
from promptray.runtime.image_file import decode_strict_jpeg
from promptray.runtime.jpeg_markers import MAX_SCANS, FrameHeader, read_frame_header
from promptray.runtime.limits import check_slow

Stored = NDArray[np.integer]
#: Takes what `frame_bytes` gives of its transfer syntaxes: a view where they are native, else bytes.
Decoder = Callable[[Any, uid.UID, PixelFormat], Stored]

_EXTENDED = 0xC1  # SOF1

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
        Sign-extended; bits outside bits stored (overlays, PS3.5 8.1.1) removed. Lossy decoders may go a
        little beyond bits stored. May be a read-only view.

    Raises
    ------
    ImageError
        `dicom.transfer-syntax`, `image.broken`, or `image.too-large` for what takes too long or much memory.
    """
    decode = DECODERS.get(syntax)
    if decode is None:
        raise _unsupported(syntax)
    words = decode(frame_bytes(dataset, syntax, pixels, index), syntax, pixels)
    if words.shape != (pixels.rows, pixels.columns):
        raise broken("the decoded frame has another size than the header states")
    return words


def _native(frame: bytes | memoryview, syntax: uid.UID, pixels: PixelFormat) -> Stored:
    """View an uncompressed frame (PS3.5 8.1.1, A.1 to A.3); one pad byte may follow it."""
    if not 0 <= len(frame) - pixels.frame_bytes <= 1:
        raise broken("the frame is not as long as rows and columns ask")
    order = ">" if syntax == uid.ExplicitVRBigEndian else "<"
    size = pixels.bits_allocated // 8
    words = np.frombuffer(frame, f"{order}u{size}", pixels.rows * pixels.columns)
    return significant(words.astype(f"=u{size}", copy=False), pixels).reshape(pixels.rows, pixels.columns)


def _deflated(frame: bytes, syntax: uid.UID, pixels: PixelFormat) -> Stored:
    """Inflate a frame (Deflated Image Frame Compression), never beyond the size that the header states."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(frame, pixels.frame_bytes + 2)
    except zlib.error:
        inflated = b""
    if not inflater.eof:
        raise broken("the deflated frame is damaged, ends early or expands beyond rows and columns")
    return _native(inflated, syntax, pixels)


def _j2k(frame: bytes, syntax: uid.UID, pixels: PixelFormat) -> Stored:
    """Decode JPEG 2000 or HTJ2K."""
    stream, precision = checked_j2k(frame, pixels)
    coding = j2k_coding(stream, whole=syntax in _WHOLE_J2K)
    threaded = syntax == uid.JPEG2000Lossless  # HTJ2K is faster without Pillow's copies
    if threaded and coding.error == 0 and not coding.signed and j2k_decode.takes(precision):
        words: Stored = quietly(lambda: j2k_decode.decode_unsigned(stream, precision), undecodable)
    else:
        words = _decoded("pylibjpeg", stream, syntax, pixels)
    return decoded_bits(words, precision, pixels, coding)


def checked_j2k(frame: bytes, pixels: PixelFormat) -> tuple[bytes, int]:
    """Return the code stream of a JPEG 2000 or HTJ2K frame, fit to be decoded, and its bits per sample."""
    stream = j2k_code_stream(frame)
    precision = _check_frame(stream, read_j2k_header(stream), pixels).precision
    check_j2k(stream)
    return stream, precision


def _jpeg_ls(frame: bytes, syntax: uid.UID, pixels: PixelFormat) -> Stored:
    """Decode JPEG-LS."""
    precision = _check_frame(frame, read_frame_header(frame), pixels).precision
    words = _decoded("pyjpegls", frame, syntax, pixels)
    return decoded_bits(words, precision, pixels, jpeg_ls_coding(frame))


def _decoded(plugin: str, frame: bytes, syntax: uid.UID, pixels: PixelFormat) -> Stored:
    """Decode with pydicom and the named plugin; the facts given to it are those already checked."""
    options: dict[str, Any] = {
        "rows": pixels.rows,
        "columns": pixels.columns,
        "number_of_frames": 1,
        "samples_per_pixel": 1,
        "photometric_interpretation": pixels.photometric,
        "bits_allocated": pixels.bits_allocated,
        "bits_stored": pixels.bits_stored,
        "pixel_representation": int(pixels.signed),
        "pixel_keyword": "PixelData",
    }
    data = encapsulate([frame])
    words, _ = quietly(
        lambda: get_decoder(syntax).as_array(data, index=0, raw=True, decoding_plugin=plugin, **options),
        undecodable,
    )
    stored: Stored = words
    return stored


def undecodable() -> ImageError:
    """Return the refusal of a frame that its decoder refuses."""
    return broken("the compressed frame cannot be decoded")


def _rle(frame: bytes, syntax: uid.UID, pixels: PixelFormat) -> Stored:
    """Decode RLE, which keeps whole containers, overlay bits included."""
    check_slow(pixels.rows, pixels.columns)
    words = decode_rle(frame, pixels.rows * pixels.columns, pixels.bits_allocated // 8)
    if words is None:
        raise broken("the RLE frame is damaged or ends early")
    return significant(words, pixels).reshape(pixels.rows, pixels.columns)


def _jpeg(frame: bytes, syntax: uid.UID, pixels: PixelFormat) -> Stored:
    """Decode lossy JPEG: 8 bits with libjpeg-turbo, every irregularity of which is an error; 12 bits here."""
    header = _check_frame(frame, read_frame_header(frame), pixels)
    samples: Stored | None
    if header.precision == 12 and syntax == uid.JPEGExtended12Bit:
        check_slow(pixels.rows, pixels.columns)
        samples = decode_extended(frame)
    elif header.precision == 8:
        samples = decode_strict_jpeg(frame) if frame.count(b"\xff\xda") <= MAX_SCANS else None
    else:
        raise broken("the JPEG frame has a precision that its transfer syntax does not know")
    if samples is None:
        raise broken("the JPEG frame cannot be decoded completely")
    return decoded_bits(samples, header.precision, pixels, LOSSY)


def _jpeg_lossless(frame: bytes, syntax: uid.UID, pixels: PixelFormat) -> Stored:
    """Decode lossless JPEG, which may keep whole containers, overlay bits included."""
    header = _check_frame(frame, read_frame_header(frame), pixels)
    check_slow(pixels.rows, pixels.columns)
    return decoded_bits(decode_lossless(frame), header.precision, pixels, LOSSLESS)


def _check_frame(frame: bytes, header: FrameHeader | None, pixels: PixelFormat) -> FrameHeader:
    """Refuse a code stream that ends early or whose own header contradicts the data set."""
    if header is None:
        raise broken("the compressed frame has no readable header")
    if (header.rows, header.columns, header.components) != (pixels.rows, pixels.columns, 1):
        raise broken("the compressed frame's own header contradicts rows, columns or samples")
    if header.precision > pixels.bits_allocated:
        raise broken("the compressed frame is deeper than bits allocated")
    if not _is_of_stored_depth(header, pixels):
        raise broken("the compressed frame's own depth contradicts bits stored")
    if pixels.bits_stored <= pixels.high_bit and header.precision <= pixels.high_bit:
        raise broken("the compressed frame does not reach the high bit")
    # Fragments have even lengths: one pad byte, which some writers leave undefined, may follow the end.
    if _END not in frame.rstrip(b"\0")[-3:]:
        raise broken("the compressed frame ends early")
    return header


def _is_of_stored_depth(header: FrameHeader, pixels: PixelFormat) -> bool:
    """Tell whether frame and data set mean the same bits, or one of the two states the whole container.

    Extended JPEG knows 8 and 12 bits only (T.81 table B.2): 9 to 11 bits are stored in 12.
    """
    if header.process == _EXTENDED and header.precision == 12 and 8 < pixels.bits_stored < 12:
        return True
    depths = {header.precision, pixels.bits_stored}
    return len(depths) == 1 or pixels.bits_allocated in depths


def _unsupported(syntax: uid.UID) -> ImageError:
    """Refuse a transfer syntax by its name; a UID that is not registered could be any text."""
    registered = syntax.name if syntax.type == "Transfer Syntax" else "no transfer syntax of the standard"
    return ImageError(
        "dicom.transfer-syntax",
        "no decoder reads this transfer syntax",
        expected="uncompressed, deflated, RLE, JPEG, lossless JPEG, JPEG-LS, JPEG 2000 or HTJ2K",
        found=_NEWER_NAMES.get(syntax, registered),
        cure="let the archive send it as Explicit VR Little Endian",
    )


#: JPEG 2000 of which no part may be left out.
_WHOLE_J2K = frozenset({uid.JPEG2000Lossless, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL})

#: Transfer syntaxes that the dictionary of pydicom 3.0 does not name.
_NEWER_NAMES = {
    "1.2.840.10008.1.2.4.110": "JPEG XL Lossless",
    "1.2.840.10008.1.2.4.111": "JPEG XL JPEG Recompression",
    "1.2.840.10008.1.2.4.112": "JPEG XL",
}

#: Transfer syntax to decoder. Uncompressed ones first; a new syntax is a row.
DECODERS: dict[str, Decoder] = {
    **dict.fromkeys(NATIVE, _native),
    "1.2.840.10008.1.2.1.98": _native,  # Encapsulated Uncompressed Explicit VR Little Endian
    "1.2.840.10008.1.2.8.1": _deflated,  # Deflated Image Frame Compression
    uid.RLELossless: _rle,
    uid.JPEGBaseline8Bit: _jpeg,
    uid.JPEGExtended12Bit: _jpeg,
    uid.JPEGLossless: _jpeg_lossless,
    uid.JPEGLosslessSV1: _jpeg_lossless,
    uid.JPEGLSLossless: _jpeg_ls,
    uid.JPEGLSNearLossless: _jpeg_ls,
    **dict.fromkeys((*_WHOLE_J2K, uid.JPEG2000, uid.HTJ2K), _j2k),
}
