"""The door: every source becomes an 8-bit picture here, or is refused; nothing else may be scored.

What tags and pixels cannot prove: that a modality tag is true, that the picture shows the body part it
names, that it shows a human where the species is not stated, or that its polarity is right.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias, TypeGuard

import numpy as np
from numpy.typing import NDArray

from promptray.runtime import policy
from promptray.runtime.array_input import colour_of_array, grey_from_array
from promptray.runtime.bundle.image_rules import Door, Greyscale
from promptray.runtime.dicom.detect import looks_like_dicom
from promptray.runtime.dicom.photometric import Photometric
from promptray.runtime.errors import BundleError, ImageError
from promptray.runtime.frames import choose_frame
from promptray.runtime.image_file import (
    JPEG_SIGNATURE,
    PNG_SIGNATURE,
    decode_jpeg,
    decode_jpeg_colour,
    decode_png,
    decode_png_colour,
    luminance,
)
from promptray.runtime.limits import MAX_FILE_BYTES, check_bytes
from promptray.runtime.picture import Clock, Kind, Picture, SourceFacts

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Source: TypeAlias = "str | os.PathLike[str] | bytes | BinaryIO | Dataset | NDArray[np.generic]"

Pixels = NDArray[np.uint8]
#: (rows, columns) -> how often a picture may be halved in decoding.
Halvings: TypeAlias = Callable[[int, int], int]


@dataclass(frozen=True)
class _FileType:
    kind: Kind
    signature: bytes
    grey: Callable[[bytes], Pixels]
    colour: Callable[[bytes], Pixels | None]


_FILE_TYPES = (
    _FileType("png", PNG_SIGNATURE, decode_png, decode_png_colour),
    _FileType("jpeg", JPEG_SIGNATURE, decode_jpeg, decode_jpeg_colour),
)


def open_picture(
    source: Source,
    door: Door,
    greyscale: Greyscale,
    *,
    keep_colour: bool = False,
    keep_stored: bool = False,
    halvings: Halvings | None = None,
    modality: str | None = None,
    frame: int | None = None,
    photometric: Photometric | None = None,
    strict: bool = False,
    name: str | None = None,
) -> Picture:
    """Read any source as an 8-bit picture, or refuse it.

    The pixels are decoded completely, taken to grey (DICOM: modality LUT or rescale, VOI LUT or first
    window, MONOCHROME1 inverted, padding black; PNG and JPEG: as OpenCV reads them), and checked against
    the policy table of :mod:`promptray.runtime.policy`. Nothing is cropped or resized here.

    Parameters
    ----------
    source : path, bytes, binary file object, pydicom Dataset or ndarray
        The type of a file is told from its content, not its name.
    door : Door
        What the model was made for.
    greyscale : Greyscale
        How values become grey; this version knows one rule for each of its fields.
    keep_colour : bool
        Keep red, green and blue of a coloured PNG, JPEG or array beside their grey. Colour in DICOM is
        refused.
    keep_stored : bool
        Keep the stored values of DICOM, in up to 16 bits, beside their grey: for a device that prepares.
    halvings : callable, optional
        (rows, columns) -> how often JPEG 2000 may be halved in decoding. The picture then has the notice
        ``reduced-decode``. By default every picture is decoded whole.
    modality : str, optional
        The modality as the caller knows it: needed for sources without tags (PNG, JPEG, arrays). It may
        stand in for an absent tag, never overrule one.
    frame : int, optional
        Frame of a multi-frame object, counted from 1 as DICOM does.
    photometric : Photometric, optional
        Only with an array: what its values mean.
    strict : bool
        Refuse (`image.tag-missing`) where an absent tag would only be noted.
    name : str, optional
        What errors call it; by default `source_name`.

    Returns
    -------
    Picture

    Raises
    ------
    ImageError
        With an `image.*` or `dicom.*` code.

    Examples
    --------
    >>> picture = open_picture("film.dcm", bundle.door, bundle.preprocessing.greyscale)  # doctest: +SKIP
    >>> picture.grey.shape, [notice.code for notice in picture.notices]  # doctest: +SKIP
    ((2140, 1760), ['body-part-absent'])
    """
    if greyscale != Greyscale():
        raise BundleError("bundle.format", "this version does not know the bundle's greyscale rule")
    if photometric is not None and not isinstance(source, np.ndarray):
        raise TypeError("photometric= belongs to array input; files state their own")
    try:
        _check_declared_types(modality, frame)
        declared = modality.strip().upper() if modality else None
        clock = Clock()
        picture = _open(source, door, declared, frame, photometric, keep_colour, keep_stored, halvings, clock)
        policy.check_picture(picture, door, strict=strict)
    except ImageError as error:
        raise _with_name(error, name or source_name(source)) from None
    checked = policy.with_suspicions(picture)
    clock.lap("check")
    return checked


def _check_declared_types(modality: object, frame: object) -> None:
    """Refuse what a caller declares in another type: a number for a modality, text for a frame."""
    if modality is not None and not isinstance(modality, str):
        raise ImageError(
            "image.modality-undeclared",
            "a modality is declared as text",
            expected="modality= such as 'DX'",
            found=type(modality).__name__,
        )
    if frame is not None and (isinstance(frame, bool) or not isinstance(frame, Integral)):
        raise ImageError(
            "dicom.frame",
            "a frame is chosen by its number",
            expected="frame= a whole number, counted from 1",
            found=type(frame).__name__,
        )


def _open(
    source: Source,
    door: Door,
    declared: str | None,
    frame: int | None,
    photometric: Photometric | None,
    keep_colour: bool,
    keep_stored: bool,
    halvings: Halvings | None,
    clock: Clock,
) -> Picture:
    if isinstance(source, np.ndarray):
        _check_tagless(door, declared, frame)
        in_colour = keep_colour and source.ndim == 3
        colour = colour_of_array(source, photometric) if in_colour else None
        grey = grey_from_array(source, photometric) if colour is None else luminance(colour)
        clock.lap("window")
        return _tagless("array", grey, declared, clock, colour)
    if _is_dataset(source):
        from promptray.runtime.dicom.source import picture_of

        return picture_of(source, door, declared, frame, clock, keep_stored=keep_stored, halvings=halvings)
    data = _read(source)
    if looks_like_dicom(data):
        # pydicom takes longer to import than all the rest: only those who read DICOM wait for it.
        from promptray.runtime.dicom.source import picture_of, read_dataset

        dataset = read_dataset(data)
        clock.lap("read")
        return picture_of(dataset, door, declared, frame, clock, keep_stored=keep_stored, halvings=halvings)
    clock.lap("read")
    for kind in _FILE_TYPES:
        if data.startswith(kind.signature):
            _check_tagless(door, declared, frame)
            colour = kind.colour(data) if keep_colour else None
            grey = kind.grey(data) if colour is None else luminance(colour)
            clock.lap("decode")
            return _tagless(kind.kind, grey, declared, clock, colour)
    raise ImageError(
        "image.format" if data else "image.broken",
        "the content is none of the formats that are read" if data else "the file is empty",
        expected="DICOM, PNG or JPEG",
        cure="export the radiograph as DICOM",
    )


def require_several(sources: object) -> None:
    """Refuse one source where several are asked for: it would fall apart into letters, lines, tags or rows.

    Raises
    ------
    TypeError
    """
    kinds = (str, bytes, bytearray, memoryview, os.PathLike, np.ndarray)
    if isinstance(sources, kinds) or hasattr(sources, "read") or _is_dataset(sources):
        raise TypeError(f"sources is a single {type(sources).__name__}: give a list, also of one")


def _is_dataset(source: object) -> TypeGuard[Dataset]:
    """Tell a pydicom Dataset without importing pydicom: who has one has imported it."""
    return any(kind.__module__ == "pydicom.dataset" for kind in type(source).__mro__)


def _check_tagless(door: Door, declared: str | None, frame: int | None) -> None:
    policy.check_declared(door, declared)
    choose_frame(1, frame)


def _tagless(kind: Kind, grey: Pixels, declared: str | None, clock: Clock, colour: Pixels | None) -> Picture:
    rows, columns = grey.shape
    facts = SourceFacts(kind, rows, columns, modality=declared, modality_declared=True)
    return Picture(grey, facts, (), clock.laps, colour)


def _read(source: str | os.PathLike[str] | bytes | BinaryIO) -> bytes:
    """Return the whole file; the size limit holds before anything is read."""
    if isinstance(source, (str, os.PathLike)):
        return _read_path(Path(source))
    data = source if isinstance(source, (bytes, bytearray, memoryview)) else _read_stream(source)
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise ImageError(
            "image.format",
            "the source is not one that can be read",
            expected="a path, bytes, a binary file object, a pydicom Dataset or an ndarray",
            found=type(source).__name__,
        )
    check_bytes(len(data))
    return bytes(data)


def _read_stream(source: object) -> object:
    try:
        return source.read(MAX_FILE_BYTES + 1) if hasattr(source, "read") else source
    except (OSError, ValueError):  # without its text: a remote file's error may name the patient
        raise ImageError(
            "image.not-found", "the file object cannot be read", expected="an open binary file"
        ) from None


def _read_path(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise FileNotFoundError
        check_bytes(path.stat().st_size)
        return path.read_bytes()
    except (OSError, ValueError):
        raise ImageError(
            "image.not-found",
            "the file does not exist or cannot be read",
            expected="a readable regular file",
        ) from None


def source_name(source: Source) -> str:
    """Name a source for people, without its folders: those of hospital archives hold patient names."""
    name = source if isinstance(source, (str, os.PathLike)) else getattr(source, "name", None)
    if isinstance(name, (str, os.PathLike)):
        return Path(name).name
    return {"ndarray": "array", "FileDataset": "Dataset"}.get(type(source).__name__, type(source).__name__)


def _with_name(error: ImageError, name: str) -> ImageError:
    fields = {**error.to_json(), "artefact": error.artefact or name}
    return ImageError(str(fields.pop("code")), str(fields.pop("message")), **fields)
