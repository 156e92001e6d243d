"""PNG and JPEG files to 8-bit grey, pixel by pixel what ``cv2.imread(file, IMREAD_GRAYSCALE)`` returns.

The published CARZero code reads its images so; a score can only be the same if the grey is:

- 16-bit samples keep their high byte; 1, 2 and 4-bit grey is spread over 0..255;
- colour becomes ``floor((9797 R + 19234 G + 3737 B) / 32768)``, in linear light where the file states a
  gamma (libpng's ``rgb_to_gray``); alpha and tRNS are ignored; a JPEG gives its luminance plane;
- an EXIF orientation is applied, so rows and columns are those of the picture as it is shown.

What OpenCV would show in part is refused here: every PNG chunk's CRC, the exact length and checksum of
its pixel stream, and every warning of libjpeg. Sizes are checked in the header, before any decoding.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from promptray.runtime.errors import ImageError
from promptray.runtime.jpeg_markers import MAX_SCANS, FrameHeader, exif_orientation, read_frame_header
from promptray.runtime.limits import check_size

Pixels = NDArray[np.uint8]
#: Shape (rows, columns).
Grey = Pixels
#: Shape (rows, columns, 3).
Colour = Pixels

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_SIGNATURE = b"\xff\xd8\xff"
#: Encoders write chunks of 8 kB and more; a file of empty chunks would only burn time.
MAX_PNG_CHUNKS = 100_000

#: Rows that are converted to grey at a time.
_BAND = 64

_GREY, _COLOUR, _PALETTE, _GREY_ALPHA, _COLOUR_ALPHA = 0, 2, 3, 4, 6

#: (bit depth, colour type): samples per pixel, Pillow mode, Pillow raw mode.
_PNG_FORMATS: dict[tuple[int, int], tuple[int, str, str]] = {
    (1, _GREY): (1, "1", "1"),
    (2, _GREY): (1, "L", "L;2"),
    (4, _GREY): (1, "L", "L;4"),
    (8, _GREY): (1, "L", "L"),
    (16, _GREY): (1, "I;16", "I;16B"),
    (1, _PALETTE): (1, "P", "P;1"),
    (2, _PALETTE): (1, "P", "P;2"),
    (4, _PALETTE): (1, "P", "P;4"),
    (8, _PALETTE): (1, "P", "P"),
    (8, _COLOUR): (3, "RGB", "RGB"),
    (16, _COLOUR): (3, "RGB", "RGB;16B"),
    (8, _GREY_ALPHA): (2, "LA", "LA"),
    (16, _GREY_ALPHA): (2, "RGBA", "LA;16B"),
    (8, _COLOUR_ALPHA): (4, "RGBA", "RGBA"),
    (16, _COLOUR_ALPHA): (4, "RGBA", "RGBA;16B"),
}

#: Start column, start row, column step, row step of the seven passes of an interlaced PNG.
_ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def decode_png(data: bytes) -> Grey:
    """Decode a PNG to its grey picture.

    Parameters
    ----------
    data : bytes
        The whole file.

    Returns
    -------
    ndarray of uint8, shape (rows, columns)

    Raises
    ------
    ImageError
        `image.broken`, `image.too-large`, or `image.colour` for colour whose conversion to grey depends on
        the library's version (an ICC profile on coloured pixels; 16-bit colour with a gamma or profile).
    """
    png = _read_png(data)
    grey = _png_grey(png)
    return _turn(grey, exif_orientation(png.ancillary.get(b"eXIf", b"")))


def decode_png_colour(data: bytes) -> Colour | None:
    """Decode a PNG to red, green and blue as stored; None where it is opaque grey of 2 to 8 bits.

    Parameters
    ----------
    data : bytes
        The whole file.

    Returns
    -------
    ndarray of uint8, shape (rows, columns, 3), or None
        What Pillow's ``Image.open(file).convert("RGB")`` returns: gamma and profiles are not applied.

    Raises
    ------
    ImageError
        `image.broken`, `image.too-large`, `image.depth` for 16 bits and for 1-bit grey, which Pillow does
        not resize as grey, or `image.colour` for transparency: no model that keeps colour was trained on
        any of these.
    """
    png = _read_png(data)
    if png.depth == 16 or (png.depth, png.colour) == (1, _GREY):
        raise _undefined("image.depth", f"the PNG has {png.depth} bits a sample")
    if png.transparency and png.colour in (_GREY, _COLOUR):
        raise _undefined("image.colour", "the PNG has a transparent level")
    if png.colour == _GREY:
        return None
    if png.colour == _GREY_ALPHA:
        if _unpack(png, _inflate(png))[:, :, 1].min() < 255:
            raise _undefined("image.colour", "the PNG is transparent in places")
        return None
    samples = _unpack(png, _inflate(png))
    if png.colour == _PALETTE:
        if png.transparency:
            raise _undefined("image.colour", "the PNG's palette is transparent")
        samples = _palette(png, samples)[samples]
    if png.colour == _COLOUR_ALPHA and samples[:, :, 3].min() < 255:
        raise _undefined("image.colour", "the PNG is transparent in places")
    return _turn(samples[:, :, :3], exif_orientation(png.ancillary.get(b"eXIf", b"")))


def decode_jpeg(data: bytes) -> Grey:
    """Decode a JPEG to its luminance plane.

    Parameters and results as :func:`decode_png`; libjpeg's accurate integer transform is used, and any
    warning of libjpeg (a premature end, corrupt data) is a refusal.
    """
    header = _checked_jpeg(data)
    return _turn(_whole(decode_strict_jpeg(data), header), exif_orientation(header.exif))


def decode_jpeg_colour(data: bytes) -> Colour | None:
    """Decode a JPEG to red, green and blue (see :func:`decode_png_colour`); None where it is grey."""
    header = _checked_jpeg(data)
    if header.components == 1:
        return None
    return _turn(_whole(_strict_jpeg(data, "RGB"), header), exif_orientation(header.exif))


def _checked_jpeg(data: bytes) -> FrameHeader:
    """Read a JPEG's header, refusing what must not be decoded."""
    header = read_frame_header(data)
    if header is None or not header.rows:
        raise _broken("the JPEG has no readable frame header")
    check_size(header.rows, header.columns, header.components)
    if header.components not in (1, 3):
        raise ImageError(
            "image.colour",
            "the JPEG is neither grey nor three-channel colour",
            expected="1 or 3 components",
            found=f"{header.components}",
            cure="convert it to grey",
        )
    if data.count(b"\xff\xda") > MAX_SCANS:
        raise _broken(f"the JPEG has more than {MAX_SCANS} scans")
    return header


def _whole(picture: Pixels | None, header: FrameHeader) -> Pixels:
    if picture is None or picture.shape[:2] != (header.rows, header.columns):
        raise _broken("the JPEG cannot be decoded completely")
    return picture


def decode_strict_jpeg(data: bytes) -> Grey | None:
    """Return the 8-bit luminance of a JPEG stream; None at any error or warning of libjpeg."""
    picture = _strict_jpeg(data, "GRAY")
    return None if picture is None else picture[:, :, 0]


def _strict_jpeg(data: bytes, colour_space: str) -> Pixels | None:
    try:
        picture: Pixels = simplejpeg.decode_jpeg(
            data, colorspace=colour_space, fastdct=False, fastupsample=False, strict=True
        )
    except ValueError:
        return None
    return picture


@dataclass
class _Png:
    """The parts of a PNG that decide its pixels."""

    columns: int
    rows: int
    depth: int
    colour: int
    interlaced: bool
    palette: bytes = b""
    transparency: bool = False
    pixels: bytearray = field(default_factory=bytearray)
    ancillary: dict[bytes, bytes] = field(default_factory=dict)


def _read_png(data: bytes) -> _Png:
    """Walk all chunks, checking order, lengths and CRCs; keep the pixel stream and what affects grey."""
    png: _Png | None = None
    position = len(PNG_SIGNATURE)
    for _ in range(MAX_PNG_CHUNKS):
        if position + 12 > len(data):
            raise _broken("the PNG ends early")
        length, kind = struct.unpack_from(">I4s", data, position)
        end = position + 8 + length
        if end + 4 > len(data):
            raise _broken("the PNG ends early")
        body = memoryview(data)[position + 8 : end]
        if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(data[end : end + 4], "big"):
            raise _broken("a chunk of the PNG does not match its checksum")
        position = end + 4
        if png is None:
            png = _png_header(kind, body)
        elif kind == b"IDAT":
            png.pixels += body
        elif kind == b"PLTE":
            png.palette = bytes(body)
        elif kind == b"tRNS":
            png.transparency = True
        elif kind in (b"eXIf", b"gAMA", b"sRGB", b"iCCP", b"cICP"):
            png.ancillary.setdefault(kind, bytes(body))
        elif kind == b"IEND":
            return png
        elif not kind[0] & 0x20:  # an unknown critical chunk (PNG 4.7.2)
            raise _broken("the PNG holds a critical chunk that is not in the standard")
    raise _broken(f"the PNG has more than {MAX_PNG_CHUNKS} chunks")


def _png_header(kind: bytes, body: memoryview) -> _Png:
    if kind != b"IHDR" or len(body) != 13:
        raise _broken("the PNG does not start with its header")
    columns, rows, depth, colour, compression, filtering, interlace = struct.unpack(">IIBBBBB", body)
    if (depth, colour) not in _PNG_FORMATS or compression or filtering or interlace > 1:
        raise _broken("the PNG header names a format that does not exist")
    check_size(rows, columns, -(-depth * _PNG_FORMATS[depth, colour][0] // 8))
    return _Png(columns, rows, depth, colour, bool(interlace))


def _png_grey(png: _Png) -> Grey:
    stream = _inflate(png)
    if png.colour == _PALETTE:
        index = _unpack(png, stream)
        return _colour_to_grey(_palette(png, index)[None], png)[0][index]
    samples = _unpack(png, stream)
    if png.colour in (_COLOUR, _COLOUR_ALPHA):
        if png.depth == 16:
            raw_mode = _PNG_FORMATS[png.depth, png.colour][2].replace("16B", "16L")
            samples = samples.astype(np.uint16) << 8 | _unpack(png, stream, raw_mode)
        return _colour_to_grey(samples[:, :, :3], png)
    if png.colour == _GREY_ALPHA:
        samples = samples[:, :, 0]
    elif png.depth == 16:
        samples = samples >> 8
    elif png.depth == 1:
        samples = samples * np.uint8(255)
    return np.ascontiguousarray(samples, np.uint8)


def _palette(png: _Png, index: NDArray[Any]) -> Colour:
    """Return the palette, (entries, 3), which must have every entry that a pixel names."""
    colours = np.frombuffer(png.palette, np.uint8)
    if len(colours) % 3 or not index.max() < len(colours) // 3 <= 256:
        raise _broken("the PNG's palette is incomplete")
    return colours.reshape(-1, 3)


def _inflate(png: _Png) -> bytes:
    """Inflate the pixel stream, which must hold exactly the header's pixels and end with its checksum."""
    bits = png.depth * _PNG_FORMATS[png.depth, png.colour][0]
    passes = _ADAM7 if png.interlaced else ((0, 0, 1, 1),)
    expected = 0
    for left, top, wide, tall in passes:
        columns, rows = (png.columns - left + wide - 1) // wide, (png.rows - top + tall - 1) // tall
        expected += rows * (1 + (columns * bits + 7) // 8) if columns > 0 and rows > 0 else 0
    inflater = zlib.decompressobj()
    try:
        stream = inflater.decompress(png.pixels, expected + 1)
    except zlib.error:
        stream = b""
    if len(stream) != expected or not inflater.eof:
        raise _broken("the PNG's pixel stream is truncated or damaged")
    return stream


def _unpack(png: _Png, stream: bytes, raw_mode: str | None = None) -> NDArray[Any]:
    """Undo filters and interlacing with Pillow's C decoder, which is fed the checked stream as a stored one.

    Pillow's own file reader is not used: its result depends on a process-wide switch
    (``LOAD_TRUNCATED_IMAGES``), and it keeps only the high byte of 16-bit colour. The raw mode with
    ``16L`` reads the other byte.
    """
    _, mode, usual = _PNG_FORMATS[png.depth, png.colour]
    size, stored = (png.columns, png.rows), zlib.compress(stream, 0)
    try:
        image = Image.frombytes(mode, size, stored, "zip", raw_mode or usual, int(png.interlaced))
    except (ValueError, OSError):
        raise _broken("the PNG's filters are damaged") from None
    return np.array(image)


def _colour_to_grey(colour: NDArray[Any], png: _Png) -> Grey:
    """Convert (rows, columns, 3) as libpng's ``rgb_to_gray`` does; 16-bit results keep their high byte."""
    deep, gamma = colour.dtype != np.uint8, _gamma(png)
    coloured = bool((colour[:, :, :1] != colour[:, :, 1:]).any())
    if (deep and gamma) or ((deep or coloured) and {b"iCCP", b"cICP"} & png.ancillary.keys()):
        raise ImageError(
            "image.colour",
            "the PNG is in colour with a profile, or in 16-bit colour with a gamma: its grey is not defined",
            cure="convert it to 8-bit grey",
        )
    if gamma:
        return _by_bands(lambda band: _linear_luminance(band, gamma), colour)
    if deep:
        return _by_bands(lambda band: (_weighted(band) + 16384) >> 23, colour)
    return luminance(colour)


def luminance(colour: Colour) -> Grey:
    """Return the grey of 8-bit colour (rows, columns, 3), as libpng weighs it without gamma."""
    return _by_bands(lambda band: _weighted(band) >> 15, colour)


def _by_bands(convert: Callable[[NDArray[Any]], NDArray[Any]], colour: NDArray[Any]) -> Grey:
    """Convert some rows at a time: the wide numbers of a whole picture would take ten times its memory."""
    grey = np.empty(colour.shape[:2], np.uint8)
    for start in range(0, len(grey), _BAND):
        grey[start : start + _BAND] = convert(colour[start : start + _BAND])
    return grey


def _weighted(colour: NDArray[Any]) -> NDArray[np.uint32]:
    red, green, blue = (colour[:, :, channel].astype(np.uint32) for channel in range(3))
    return 9797 * red + 19234 * green + 3737 * blue


def _linear_luminance(colour: Colour, gamma: int) -> NDArray[Any]:
    """Weigh in linear light; libpng leaves pixels of three equal samples as they are."""
    coloured = (colour[:, :, :1] != colour[:, :, 1:]).any(axis=2)
    linear = _weighted(_gamma_table(_reciprocal(gamma))[colour])
    return np.where(coloured, _gamma_table(gamma)[(linear + 16384) >> 15], colour[:, :, 0])


def _gamma(png: _Png) -> int | None:
    """Return the file's gamma times 100000 where libpng finds it significant, else None."""
    if b"sRGB" in png.ancillary:
        return 45455
    gamma = int.from_bytes(png.ancillary.get(b"gAMA", b""), "big")
    return gamma if 16 <= gamma <= 625_000_000 and abs(gamma - 100_000) > 5000 else None


def _reciprocal(gamma: int) -> int:
    return int(np.floor(1e10 / gamma + 0.5))


def _gamma_table(gamma: int) -> NDArray[np.uint32]:
    return np.floor(255 * (np.arange(256) / 255.0) ** (gamma * 1e-5) + 0.5).astype(np.uint32)


def _turn(picture: Pixels, orientation: int) -> Pixels:
    """Turn and mirror a picture so that it is shown upright (EXIF 2.3, table of Orientation)."""
    if orientation >= 5:
        picture = picture.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        picture = picture[::-1]
    if orientation in (2, 3, 6, 7):
        picture = picture[:, ::-1]
    return np.ascontiguousarray(picture)


def _undefined(code: str, what: str) -> ImageError:
    return ImageError(
        code,
        f"{what}, so what the model should see of it is not defined",
        expected="8-bit colour or 8-bit grey, without transparency",
        cure="window it to 8-bit grey, or export the radiograph as DICOM",
    )


def _broken(message: str) -> ImageError:
    return ImageError("image.broken", message, cure="copy or export the file again")
