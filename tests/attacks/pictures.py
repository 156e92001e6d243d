"""Hostile PNG and JPEG files, and files that are two formats at once."""

from __future__ import annotations

import struct
import zlib

SIDE = 40
SIGNATURE = b"\x89PNG\r\n\x1a\n"
_GREY, _COLOUR, _PALETTE, _COLOUR_ALPHA = 0, 2, 3, 6


def chunk(kind: bytes, content: bytes, *, crc: int | None = None, length: int | None = None) -> bytes:
    """A PNG chunk; checksum and length may lie."""
    check = zlib.crc32(kind + content) if crc is None else crc
    return (
        struct.pack(">I", len(content) if length is None else length)
        + kind
        + content
        + struct.pack(">I", check)
    )


def header(
    columns: int = SIDE, rows: int = SIDE, depth: int = 8, colour: int = _GREY, interlaced: int = 0
) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", columns, rows, depth, colour, 0, 0, interlaced))


def _rows(bits: int = 8, rows: int = SIDE, filter_type: int = 0) -> bytes:
    line = bytes([filter_type]) + bytes(range(SIDE * bits // 8))
    return line * rows


def _pixels(rows: bytes) -> bytes:
    return chunk(b"IDAT", zlib.compress(rows, 9))


def png(*chunks: bytes) -> bytes:
    return SIGNATURE + b"".join(chunks)


def segment(marker: int, content: bytes, length: int | None = None) -> bytes:
    """A JPEG marker segment; its length may lie."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2 if length is None else length) + content


def frame(rows: int, columns: int, components: int = 1, precision: int = 8, marker: int = 0xC0) -> bytes:
    parts = b"".join(bytes([number + 1, 0x11, 0]) for number in range(components))
    return segment(marker, struct.pack(">BHHB", precision, rows, columns, components) + parts)


def jpeg(*segments: bytes) -> bytes:
    return b"\xff\xd8" + b"".join(segments) + b"\xff\xd9"


def attacks() -> dict[str, bytes]:
    """Name of each attack and its bytes."""
    packed, bomb = zlib.compress(_rows(), 9), zlib.compress(bytes(64 << 20), 9)
    pixels, end = chunk(b"IDAT", packed), chunk(b"IEND", b"")
    whole = png(header(), pixels, end)
    tables = segment(0xDB, b"\0" + b"\1" * 64) + segment(0xC4, b"\0\1" + bytes(15) + b"\0")
    scan = segment(0xDA, b"\1\1\0\0\x3f\0")
    return {
        # PNG: bombs and sizes
        "pixels-bomb.png": png(header(), chunk(b"IDAT", bomb), end),
        "text-bomb-broken-after.png": png(header(), chunk(b"zTXt", b"PLANTED\0\0" + bomb), end),
        "profile-bomb-in-colour.png": png(
            header(colour=_COLOUR), chunk(b"iCCP", b"p\0\0" + bomb),
            _pixels(_rows(24)), end,
        ),
        "size-4-billion.png": png(header(0xFFFFFFFF, 0xFFFFFFFF), pixels, end),
        "size-32768.png": png(header(32768, 32768), pixels, end),
        "size-zero.png": png(header(0, 40), pixels, end),
        "colour-of-16-bits-beyond-limit.png": png(header(8192, 8192, 16, _COLOUR_ALPHA), pixels, end),
        "chunks-100001.png": png(header(), chunk(b"tEXt", b"") * 100_001, pixels, end),
        # PNG: structure
        "crc-wrong.png": png(header(), chunk(b"IDAT", packed, crc=1), end),
        "chunk-length-lies.png": png(header(), chunk(b"IDAT", packed, length=0xFFFFFFFF), end),
        "cut-in-pixels.png": whole[: len(whole) // 2],
        "no-end.png": png(header(), pixels),
        "no-pixels.png": png(header(), end),
        "no-header.png": png(pixels, end),
        "header-of-wrong-length.png": png(chunk(b"IHDR", bytes(12)), pixels, end),
        "format-that-does-not-exist.png": png(header(depth=3), pixels, end),
        "critical-chunk-unknown.png": png(header(), chunk(b"EVIL", b"x"), pixels, end),
        "filter-that-does-not-exist.png": png(header(), _pixels(_rows(filter_type=9)), end),
        "stream-too-long.png": png(header(), _pixels(_rows() + b"x"), end),
        "stream-checksum-wrong.png": png(header(), chunk(b"IDAT", packed[:-1] + b"\0"), end),
        "interlaced-cut.png": png(header(interlaced=1), chunk(b"IDAT", packed[: len(packed) // 2]), end),
        "palette-short.png": png(header(colour=_PALETTE), chunk(b"PLTE", b"\0\0\0"), pixels, end),
        "palette-huge.png": png(header(colour=_PALETTE), chunk(b"PLTE", bytes(3 * 70_000)), pixels, end),
        "palette-none.png": png(header(colour=_PALETTE), pixels, end),
        "constant-animated.png": png(
            header(), chunk(b"acTL", struct.pack(">II", 2**31, 0)),
            _pixels((b"\0" + bytes(SIDE)) * SIDE), end,
        ),
        "signature-only.png": SIGNATURE,
        # JPEG
        "size-65500.jpg": jpeg(frame(65500, 65500), tables, scan),
        "size-zero-rows.jpg": jpeg(frame(0, SIDE), tables, scan),
        "components-255.jpg": jpeg(frame(SIDE, SIDE, 255), tables, scan),
        "components-4.jpg": jpeg(frame(SIDE, SIDE, 4), tables, scan),
        "precision-12.jpg": jpeg(frame(SIDE, SIDE, precision=12, marker=0xC1), tables, scan),
        "lossless.jpg": jpeg(frame(SIDE, SIDE, marker=0xC3), tables, scan),
        "scans-101.jpg": jpeg(frame(SIDE, SIDE, marker=0xC2), tables, scan * 101),
        "scan-empty.jpg": jpeg(frame(SIDE, SIDE), tables, scan),
        "tables-none.jpg": jpeg(frame(SIDE, SIDE), scan),
        "segment-length-zero.jpg": jpeg(segment(0xE1, b"", 0), frame(SIDE, SIDE)),
        "segment-beyond-file.jpg": jpeg(segment(0xE1, b"Exif\0\0", 0xFFFF)),
        "fill-bytes-without-end.jpg": b"\xff\xd8" + b"\xff" * 100_000,
        "comment-only.jpg": jpeg(segment(0xFE, b"PLANTED^PATIENT")),
        "start-only.jpg": b"\xff\xd8\xff",
        # Neither, or both
        "png-that-says-dicom.png": png(header(), chunk(b"tEXt", bytes(128 - 41) + b"DICM"), pixels, end),
        "jpeg-that-says-dicom.jpg": (b"\xff\xd8\xff\xe0" + bytes(124)) + b"DICM" + bytes(40),
        "report.pdf": b"%PDF-1.7\n1 0 obj << /Type /Catalog >> endobj\n%%EOF\n",
        "report.txt": b"PLANTED^PATIENT: no focal consolidation. " * 5,
        "archive.zip": b"PK\x03\x04" + bytes(60),
        "film.gif": b"GIF89a" + struct.pack("<HH", SIDE, SIDE) + bytes(40),
        "film.bmp": b"BM" + bytes(80),
        "film.tif": b"II*\0" + bytes(80),
        "nothing.dcm": b"",
        "zeros.dcm": bytes(4096),
    }  # fmt: skip
