"""Hostile DICOM objects, written byte by byte: no library would write most of them."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

ROWS = COLUMNS = 40
_LONG = (b"OB", b"OW", b"OF", b"SQ", b"UN", b"UT", b"UC", b"UR")
_UNDEFINED = 0xFFFFFFFF

IMPLICIT, EXPLICIT, BIG = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
DEFLATED, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
JPEG, LOSSLESS, JPEG_LS, J2K = (f"1.2.840.10008.1.2.4.{last}" for last in (50, 70, 80, 90))
PIXELS, PRIVATE = 0x7FE00010, 0x00091001

Tags = Mapping[int, tuple[bytes, bytes]]


def element(tag: int, vr: bytes, value: bytes, length: int | None = None) -> bytes:
    """An explicit little endian element; `length` may lie."""
    size = len(value) if length is None else length
    head = struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr
    return head + (struct.pack("<HI", 0, size) if vr in _LONG else struct.pack("<H", size)) + value


def _even(text: str, pad: bytes = b" ") -> bytes:
    return text.encode("latin-1") + pad * (len(text) % 2)


def _number(value: int) -> tuple[bytes, bytes]:
    return b"US", struct.pack("<H", value)


def _text(vr: bytes, text: str) -> tuple[bytes, bytes]:
    return vr, _even(text, b"\0" if vr == b"UI" else b" ")


#: A complete film of 8 bits, without its pixels.
FILM: dict[int, tuple[bytes, bytes]] = {
    0x00080016: _text(b"UI", "1.2.840.10008.5.1.4.1.1.1"),
    0x00080018: _text(b"UI", "1.2.3.1"),
    0x00080060: _text(b"CS", "CR"),
    0x00100010: _text(b"PN", "PLANTED^PATIENT"),
    0x00180015: _text(b"CS", "CHEST"),
    0x00280002: _number(1),
    0x00280004: _text(b"CS", "MONOCHROME2"),
    0x00280010: _number(ROWS),
    0x00280011: _number(COLUMNS),
    0x00280100: _number(8),
    0x00280101: _number(8),
    0x00280102: _number(7),
    0x00280103: _number(0),
    0x00281050: _text(b"DS", "128"),
    0x00281051: _text(b"DS", "256"),
}
_EOI = b"\xff\xd9"
RAMP = bytes(value % 256 for value in range(ROWS * COLUMNS))


def body(changes: Tags | None = None, pixels: bytes | None = None, *, drop: tuple[int, ...] = ()) -> bytes:
    """The data set: the film's elements, some changed or dropped, in order; then `pixels` as it is."""
    tags = {tag: value for tag, value in {**FILM, **(changes or {})}.items() if tag not in drop}
    last = element(PIXELS, b"OB", RAMP) if pixels is None else pixels
    return b"".join(element(tag, *tags[tag]) for tag in sorted(tags)) + last


def file(data_set: bytes, syntax: str | None = EXPLICIT) -> bytes:
    """Preamble, file meta information and data set."""
    meta = element(0x00020010, b"UI", _even(syntax, b"\0")) if syntax is not None else b""
    meta = element(0x00020001, b"OB", b"\0\1") + meta
    return bytes(128) + b"DICM" + element(0x00020000, b"UL", struct.pack("<I", len(meta))) + meta + data_set


def fragments(*parts: bytes, offsets: bytes = b"", end: bool = True) -> bytes:
    """Encapsulated pixel data (PS3.5 A.4)."""
    items = b"".join(b"\xfe\xff\x00\xe0" + struct.pack("<I", len(part)) + part for part in (offsets, *parts))
    close = b"\xfe\xff\xdd\xe0\0\0\0\0" if end else b""
    return element(PIXELS, b"OB", items + close, _UNDEFINED)


def deflate(data_set: bytes) -> bytes:
    """A deflated data set (PS3.5 A.5)."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return packer.compress(data_set) + packer.flush()


def _nested(depth: int, tag: int = 0x00400275, *, known: bool = False) -> bytes:
    """Sequences within sequences, none of them ever closed."""
    opened = element(tag, b"SQ", b"", _UNDEFINED) + b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return (element(0x52009230, b"SQ", b"", _UNDEFINED) + opened[12:] if known else b"") + opened * depth


def _meta(before: bytes, vr: bytes = b"SQ", depth: int = 40) -> bytes:
    """Nested sequences for the length of the file meta information, a broken number in the innermost.

    pydicom 3.0 puts this value into a message; its text doubles with each level.
    """
    value = element(0x00280010, b"US", b"\x28")
    for _ in range(depth):
        value = element(0x00081115, b"SQ", b"\xfe\xff\x00\xe0" + struct.pack("<I", len(value)) + value)
    value = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(value)) + value
    length = None if vr == b"SQ" else _UNDEFINED
    close = b"" if length is None else b"\xfe\xff\xdd\xe0\0\0\0\0"
    meta = before + element(0x00020000, vr, value, length) + close
    return bytes(128) + b"DICM" + meta + body()


def _many(count: int) -> bytes:
    return element(0x00411001, b"LO", b"") * count


def _items(count: int) -> bytes:
    """A sequence that is read, with very many empty items."""
    items = b"\xfe\xff\x00\xe0\0\0\0\0" * count + b"\xfe\xff\xdd\xe0\0\0\0\0"
    return element(0x52009230, b"SQ", items, _UNDEFINED)


def _rle(*segments: bytes, offsets: tuple[int, ...] | None = None, count: int | None = None) -> bytes:
    starts = offsets or tuple(64 + sum(map(len, segments[:n])) for n in range(len(segments)))
    head = struct.pack("<16I", len(segments) if count is None else count, *starts, *[0] * (15 - len(starts)))
    return head + b"".join(segments)


def _frame_header(marker: int, rows: int, columns: int, components: int = 1, precision: int = 8) -> bytes:
    parts = b"".join(bytes([number + 1, 0x11, 0]) for number in range(components))
    content = struct.pack(">BHHB", precision, rows, columns, components) + parts
    return b"\xff\xd8\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def _j2k(rows: int, columns: int, components: int = 1, tile: int = 0) -> bytes:
    """A code stream header (SIZ); `tile` is the tiles' side, by default the picture's."""
    sides = (tile or columns, tile or rows)
    size = (
        struct.pack(">H8IH", 0, columns, rows, 0, 0, *sides, 0, 0, components) + b"\x07\x01\x01" * components
    )
    siz = b"\xff\x51" + struct.pack(">H", len(size) + 2) + size
    cod = b"\xff\x52\x00\x0c\x00\x00\x00\x01\x00\x00\x04\x04\x00\x00"
    qcd = b"\xff\x5c\x00\x04\x40\x40"
    tile_part = b"\xff\x90\x00\x0a\x00\x00\x00\x00\x00\x0e\x00\x01\xff\x93"
    return b"\xff\x4f" + siz + cod + qcd + tile_part + b"\xff\xd9"


def _film(changes: Tags) -> bytes:
    """The film with some elements changed."""
    return file(body(changes))


def _encapsulated(syntax: str, *parts: bytes, offsets: bytes = b"", end: bool = True) -> bytes:
    """The film with fragments for pixels."""
    return file(body(pixels=fragments(*parts, offsets=offsets, end=end)), syntax)


def attacks() -> dict[str, bytes]:
    """Name of each attack and its bytes."""
    table = element(0x00283002, b"US", struct.pack("<3H", 0, 0, 16)) + element(0x00283006, b"OW", bytes(6))
    item = b"\xfe\xff\x00\xe0" + struct.pack("<I", len(table)) + table
    big = file(body({0x00280010: _number(65535), 0x00280011: _number(65535)}))
    pixels_at = file(body()).index(b"\xe0\x7f\x10\0")
    whole = file(body())
    return {
        # What the parser meets
        "nested-10000.dcm": file(body(pixels=_nested(10_000))),
        "nested-10000-in-frames.dcm": file(body(pixels=_nested(10_000, 0x00289132, known=True))),
        "nested-10000-private.dcm": file(_nested(10_000, PRIVATE)),
        "length-beyond-file.dcm": file(body(pixels=element(PIXELS, b"OB", RAMP, 0x7FFFFFFE))),
        "length-negative.dcm": file(body(pixels=element(PIXELS, b"OB", RAMP, 0xFFFFFFFE))),
        "length-undefined-of-text.dcm": _film({0x00180015: (b"UT", b"")}).replace(
            b"UT\0\0\0\0\0\0", b"UT\0\0\xff\xff\xff\xff"
        ),
        "length-odd.dcm": file(body({0x00180015: (b"CS", b"CHE")}, drop=(0x00280010,))),
        "vr-nonsense.dcm": _film({0x00280010: (b"??", b"\x28\0")}),
        "vr-of-rows-is-sequence.dcm": _film({0x00280010: (b"SQ", b"\x28\0")}),
        "private-megabyte-then-nothing.dcm": file(element(PRIVATE, b"UN", bytes(1 << 20), 1 << 30)),
        "elements-50000-then-nothing.dcm": file(_many(50_000)),
        "meta-sequences.dcm": _meta(b""),
        "meta-sequences-behind-long-vr.dcm": _meta(element(0x00020001, b"UR", b"\0\1")),
        "meta-sequences-behind-no-vr.dcm": _meta(struct.pack("<HHI", 2, 1, 2) + b"\0\1"),
        "meta-sequences-within-unknown.dcm": _meta(b"", vr=b"UN"),
        "meta-group-endless.dcm": whole[:140] + struct.pack("<I", 0xFFFFFFFF) + whole[144:158],
        "cut-in-pixels.dcm": whole[:-100],
        "cut-in-header.dcm": whole[: pixels_at - 30],
        "cut-after-magic.dcm": whole[:132],
        # Transfer syntaxes that lie
        "syntax-unknown.dcm": file(body(), "1.2.3.4.5"),
        "syntax-free-text.dcm": file(body(), "PLANTED PATIENT"),
        "syntax-says-big-endian.dcm": file(body(), BIG),
        "syntax-says-deflated.dcm": file(body(), DEFLATED),
        "syntax-says-jpeg.dcm": file(body(), JPEG),
        "syntax-says-j2k-holds-jpeg.dcm": _encapsulated(J2K, _frame_header(0xC0, ROWS, COLUMNS) + _EOI),
        "syntax-says-rle-holds-j2k.dcm": _encapsulated(RLE, _j2k(ROWS, COLUMNS)),
        # Bombs
        "deflated-bomb-600-mb.dcm": file(deflate(element(PRIVATE, b"UN", bytes(600 << 20))), DEFLATED),
        "deflated-rows-of-100-mb.dcm": file(deflate(body({0x00280010: (b"UN", bytes(100 << 20))})), DEFLATED),
        "deflated-items-2-million.dcm": file(deflate(_items(2_000_000)), DEFLATED),
        "items-150000.dcm": file(_items(150_000)),
        "deflated-cut.dcm": file(deflate(body())[:-20], DEFLATED),
        "size-65535.dcm": big,
        "size-zero.dcm": _film({0x00280010: _number(0)}),
        "size-32-bits-beyond-limit.dcm": file(
            body({0x00280010: _number(8000), 0x00280011: _number(8000), 0x00280100: _number(32),
                  0x00280101: _number(32), 0x00280102: _number(31)})
        ),
        "frames-1000000.dcm": _film({0x00280008: _text(b"IS", "1000000")}),
        "frames-negative.dcm": _film({0x00280008: _text(b"IS", "-1")}),
        "frames-beyond-integers.dcm": _film({0x00280008: _text(b"IS", "99999999999999999999")}),
        "rle-expands-beyond-frame.dcm": _encapsulated(RLE, _rle(b"\x81\x00" * 20_000)),
        "rle-offset-beyond-frame.dcm": _encapsulated(RLE, _rle(b"\x81\x00", offsets=(0xFFFFFFF0,))),
        "rle-15-segments.dcm": _encapsulated(RLE, _rle(b"\x81\x00" * 16, count=15)),
        "rle-segments-4-billion.dcm": _encapsulated(RLE, _rle(b"\x81\x00" * 16, count=0xFFFFFFFF)),
        "jpeg-65500.dcm": _encapsulated(JPEG, _frame_header(0xC0, 65500, 65500) + _EOI),
        "jpeg-lossless-65500.dcm": _encapsulated(LOSSLESS, _frame_header(0xC3, 65500, 65500) + _EOI),
        "jpeg-ls-65500.dcm": _encapsulated(JPEG_LS, _frame_header(0xF7, 65500, 65500) + _EOI),
        "j2k-4-billion.dcm": _encapsulated(J2K, _j2k(0xFFFFFFFF, 0xFFFFFFFF)),
        "j2k-components-16384.dcm": _encapsulated(J2K, _j2k(ROWS, COLUMNS, 16384)),
        "j2k-tiles-of-one-pixel.dcm": _encapsulated(J2K, _j2k(ROWS, COLUMNS, tile=1)),
        "j2k-empty.dcm": _encapsulated(J2K, b"\xff\x4f\xff\xd9"),
        # Fragments
        "fragments-empty.dcm": _encapsulated(JPEG, b"", b""),
        "fragments-none.dcm": _encapsulated(JPEG),
        "fragments-unclosed.dcm": _encapsulated(JPEG, b"\xff\xd8", end=False),
        "fragments-offsets-lie.dcm": _encapsulated(
            JPEG, b"\xff\xd8" * 4, offsets=struct.pack("<3I", 9, 0xFFFFFFF0, 1)
        ),
        "fragments-length-lies.dcm": _encapsulated(JPEG, b"\xff\xd8" * 4).replace(
            b"\x08\0\0\0\xff\xd8", b"\xf8\xff\xff\xff\xff\xd8"
        ),
        # Values
        "charset-nonsense.dcm": _film(
            {0x00080005: _text(b"CS", "PLANTED\\ISO 2022 IR 87\\\x1b$B"), 0x00180015: (b"CS", b"BREAST")}
        ),
        "charset-escapes.dcm": _film(
            {0x00080005: _text(b"CS", "\\ISO 2022 IR 87"),
             0x00180015: (b"LO", b"\x1b$B\x1b(J\x1b$B\xff\xff BREAST ")}
        ),
        "modality-many.dcm": _film({0x00080060: _text(b"CS", "\\".join(["CR"] * 5000)[:65534])}),
        "rows-ten-values.dcm": _film({0x00280010: (b"US", struct.pack("<10H", *range(40, 50)))}),
        "bits-stored-above-allocated.dcm": _film({0x00280101: _number(12)}),
        "bits-zero.dcm": _film({0x00280101: _number(0)}),
        "window-nan.dcm": _film({0x00281050: _text(b"DS", "nan")}),
        "window-infinite.dcm": _film({0x00281051: _text(b"DS", "1e999")}),
        "window-a-name.dcm": _film({0x00281050: _text(b"DS", "PLANTED^PATIENT")}),
        "window-width-zero.dcm": _film({0x00281051: _text(b"DS", "0")}),
        "slope-zero.dcm": _film({0x00281052: _text(b"DS", "0"), 0x00281053: _text(b"DS", "0")}),
        "table-65536-promised-3-given.dcm": _film({0x00283010: (b"SQ", item)}),
        # What is no film
        "pdf-encapsulated.dcm": file(
            b"".join(element(tag, *value) for tag, value in sorted(FILM.items()) if tag < 0x00280000)
            + element(0x00420011, b"OB", b"%PDF-1.7\n")
        ),
        "dicomdir-like.dcm": file(element(0x00041130, b"CS", b"DISC")),
        "png-in-preamble.dcm": b"\x89PNG\r\n\x1a\n" + bytes(120) + file(body(drop=(0x00280010,)))[128:],
        "animal.dcm": _film({0x00102201: _text(b"LO", "Canis lupus familiaris")}),
        "for-processing.dcm": _film({0x00080068: _text(b"CS", "FOR PROCESSING")}),
    }  # fmt: skip
