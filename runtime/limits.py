"""Size limits, checked from headers before anything is read or decoded; every refusal names its limit."""

from __future__ import annotations

from pathlib import PurePosixPath

from promptray.runtime.errors import BundleError, ImageError

#: Most bytes of an image file.
MAX_FILE_BYTES = 512 * 1024 * 1024
#: Most pixels of one picture or frame: twice the largest radiograph detectors.
MAX_PIXELS = 64 * 1024 * 1024
#: Most bytes of a decoded picture or frame: those pixels with 16 bits. Decoding takes a few times as many.
MAX_DECODED_BYTES = 2 * MAX_PIXELS
#: Most pixels of a frame that is decoded here and not by a library: twice the largest mammography detector.
#: A hostile one with more would take over five seconds.
MAX_SLOW_PIXELS = 32 * 1024 * 1024
#: Most code-blocks, precincts, packets and tiles of a JPEG 2000 frame: the largest picture has half as many
#: in blocks of 16 x 16, a thirtieth in the usual ones of 64 x 64. OpenJPEG takes up to 1000 bytes for each.
MAX_J2K_PARTS = 512 * 1024
#: Most rows or columns.
MAX_SIDE = 32768
#: Most bytes of a deflated DICOM data set once inflated: the largest frame twice.
MAX_INFLATED_BYTES = 2 * MAX_DECODED_BYTES
#: Most reads of a DICOM parser: one to three for each element or item, each of which becomes an object of
#: about a kilobyte. Radiographs have some hundred elements.
MAX_PARSER_READS = 200_000
#: Most bytes of an element other than pixel data: the largest lookup table has 128 KiB.
MAX_ELEMENT_BYTES = 2 * 1024 * 1024
#: Most bytes of one tensor of a prompt bank, padded as the head takes it.
MAX_BANK_TENSOR_BYTES = 1024 * 1024 * 1024
#: Most bytes of a bundle's file by its suffix; other files have the limit of an image. Protocol buffers
#: end at 2 GiB, so an ONNX file cannot be larger.
MAX_BUNDLE_FILE_BYTES = {".json": 64 << 20, ".onnx": 2 << 30, ".safetensors": 2 << 30, ".plan": 2 << 30}


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


def check_slow(rows: int, columns: int) -> None:
    """Refuse a frame that takes too long where no library decodes it."""
    if rows * columns > MAX_SLOW_PIXELS:
        raise ImageError(
            "image.too-large",
            "the frame exceeds the size limit of its compression",
            expected=f"at most {MAX_SLOW_PIXELS} pixels",
            found=f"{rows} x {columns}",
            cure="let the archive send it as Explicit VR Little Endian",
        )


def check_bytes(size: int) -> None:
    """Refuse a file beyond the limit."""
    if size > MAX_FILE_BYTES:
        raise ImageError(
            "image.too-large",
            "the file exceeds the size limit",
            expected=f"at most {MAX_FILE_BYTES} bytes",
            found=f"{size}",
        )


def check_bundle_file(name: str, size: int) -> None:
    """Refuse a bundle's file, by its name and listed size, that nobody should read whole."""
    limit = MAX_BUNDLE_FILE_BYTES.get(PurePosixPath(name).suffix, MAX_FILE_BYTES)
    if size > limit:
        raise BundleError(
            "bundle.format",
            "a file exceeds the size limit of its kind",
            artefact=name,
            expected=f"at most {limit} bytes",
            found=f"{size}",
            cure="build the bundle again with fewer findings, or a smaller model",
        )


def check_bank_tensor(name: str, size: int) -> None:
    """Refuse a tensor of a bank whose padding makes it a bomb: few rows in a bucket for thousands."""
    if size > MAX_BANK_TENSOR_BYTES:
        raise BundleError(
            "bundle.format",
            "a tensor of the prompt bank, padded to its row bucket, exceeds the size limit",
            artefact=name,
            expected=f"at most {MAX_BANK_TENSOR_BYTES} bytes",
            found=f"{size}",
            cure="build the bundle again with smaller row buckets or fewer findings",
        )
