"""Size limits, checked from headers before anything is decoded; every refusal names its limit."""

from __future__ import annotations

from promptray.runtime.errors import ImageError

#: Most bytes of an image file.
MAX_FILE_BYTES = 512 * 1024 * 1024
#: Most pixels of one picture or frame: twice the largest radiograph detectors.
MAX_PIXELS = 64 * 1024 * 1024
#: Most bytes of a decoded picture or frame: those pixels with 16 bits. Decoding takes a few times as many.
MAX_DECODED_BYTES = 2 * MAX_PIXELS
#: Most rows or columns.
MAX_SIDE = 32768


def check_size(rows: int, columns: int, pixel_bytes: int = 1) -> None:
    """Refuse a picture whose declared size is zero or beyond the limits; `pixel_bytes` is of all samples."""
    if rows < 1 or columns < 1:
        raise ImageError("image.broken", "the picture has no rows or no columns")
    if max(rows, columns) > MAX_SIDE or rows * columns > MAX_PIXELS:
        raise ImageError(
            "image.too-large",
            "the picture exceeds the size limit",
            expected=f"at most {MAX_PIXELS} pixels and {MAX_SIDE} per side",
            found=f"{rows} x {columns}",
        )
    if rows * columns * pixel_bytes > MAX_DECODED_BYTES:
        raise ImageError(
            "image.too-large",
            "the decoded picture exceeds the size limit",
            expected=f"at most {MAX_DECODED_BYTES} bytes",
            found=f"{rows} x {columns} pixels of {pixel_bytes} bytes",
        )


def check_bytes(size: int) -> None:
    """Refuse a file that is empty or beyond the limit."""
    if size > MAX_FILE_BYTES:
        raise ImageError(
            "image.too-large",
            "the file exceeds the size limit",
            expected=f"at most {MAX_FILE_BYTES} bytes",
            found=f"{size}",
        )
