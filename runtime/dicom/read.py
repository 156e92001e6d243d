"""Open a DICOM object: from bytes to a data set that holds only the tags the runtime uses.

Names, dates and free text of a patient are skipped by the parser, so they cannot leak from here.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    MediaStorageDirectoryStorage,
)
from pydicom.uid import ExplicitVRLittleEndian as ExplicitLittle
from pydicom.uid import ImplicitVRLittleEndian as ImplicitLittle
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from promptray.runtime.dicom import tags
from promptray.runtime.dicom.damage import broken
from promptray.runtime.dicom.detect import with_preamble
from promptray.runtime.dicom.quiet import quietly
from promptray.runtime.errors import ImageError
from promptray.runtime.limits import MAX_ELEMENT_BYTES, MAX_INFLATED_BYTES, MAX_PARSER_READS

#: All that is ever read of a data set.
KEYWORDS = (
    *("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality"),
    *("BodyPartExamined", "AnatomicRegionSequence", "BurnedInAnnotation"),
    *("PatientSpeciesDescription", "PatientSpeciesCodeSequence", "PresentationIntentType"),
    *("ViewPosition", "ViewCodeSequence", "ViewModifierCodeSequence", "PartialView"),
    *("ImageLaterality", "Laterality"),
    *("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"),
    *("SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelPaddingValue", "PixelPaddingRangeLimit"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *("RescaleIntercept", "RescaleSlope", "ModalityLUTSequence"),
    *("PresentationLUTShape", "PresentationLUTSequence"),
    *("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData"),
    *("ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
)
_TAGS = [tag for tag in map(tag_for_keyword, KEYWORDS) if tag is not None]
_READ = frozenset(_TAGS)
_PIXEL_TAGS = (0x7FE00010, 0x7FE00008, 0x7FE00009)  # integers, float, double

_PREAMBLE = 128
_LONG_VRS = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_32)
_UNDEFINED = 0xFFFFFFFF  # the length of encapsulated pixel data


def read_dataset(data: bytes) -> Dataset:
    """Parse a DICOM object; pixel data stay encoded.

    Parameters
    ----------
    data : bytes
        The whole object, with or without preamble and file meta information.

    Raises
    ------
    ImageError
        `image.broken` where the parser fails or the pixel data end early, `dicom.tags` for a tag written
        twice, `image.too-large` where a deflated data set expands beyond the limit, or has too many elements.
    """
    data = with_preamble(data)
    _check_file_meta(data)
    plain = _inflated(data)
    stream = _Stream(data if plain is None else plain)
    dataset: Dataset = quietly(
        lambda: read_partial(stream, stop_when=_each_once(), force=True, specific_tags=_TAGS),
        lambda: broken("the DICOM object cannot be parsed"),
    )
    for tag in _PIXEL_TAGS:
        _check_held(dataset, tag)
    if not any(tag in dataset for tag in _PIXEL_TAGS) and _ends_early(dataset, stream):
        raise broken("the DICOM object ends early")
    if plain is not None:
        dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    return dataset


def _each_once() -> Callable[[int, str | None, int], bool]:
    """Return a watcher of the parser that never stops it, but refuses a tag written twice (PS3.5 7.1).

    pydicom keeps the last one: a second Modality or Photometric Interpretation would win in silence.
    """
    seen: set[int] = set()

    def watch(tag: int, vr: str | None, length: int) -> bool:
        if tag in seen:
            raise tags.unreadable(keyword_for_tag(tag), "is written twice")
        if tag in _READ:
            seen.add(int(tag))
        return False

    return watch


class _Stream(io.BytesIO):
    """Counts reads, and remembers whether the last came back in part, as at the end of a truncated file.

    Pixels that are not compressed come back as a view: copying ten megabytes takes longer than resizing them.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._data = memoryview(data)
        self.size = len(data)
        self.partial = False
        self._reads = 0

    def read(self, size: int | None = -1, /) -> Any:
        if size is None or size < 0:  # pydicom asks for all that is left only to inflate it, without bound
            raise broken(
                "the DICOM object states its transfer syntax in a way that hides a deflated data set"
            )
        self._reads += 1
        if self._reads > MAX_PARSER_READS:
            raise ImageError(
                "image.too-large",
                "the DICOM object holds too many elements and items",
                expected=f"at most {MAX_PARSER_READS} reads to parse it",
                cure="export the radiograph alone from its archive",
            )
        if size > MAX_ELEMENT_BYTES:  # nothing but pixels may be as long
            start = self.tell()
            data: Any = self._data[start : start + size]
            self.seek(start + len(data))
        else:
            data = super().read(size)
        self.partial = 0 < len(data) < size
        return data


def _check_held(dataset: Dataset, tag: int) -> None:
    """Refuse an element whose value is shorter than its length states."""
    element = quietly(lambda: dataset.get_item(tag), lambda: broken("the DICOM object cannot be parsed"))
    if isinstance(element, RawDataElement) and element.length not in (len(element.value or b""), _UNDEFINED):
        raise broken("the DICOM object ends early")


def _ends_early(dataset: Dataset, stream: _Stream) -> bool:
    """Tell whether an object without pixel data is one that was cut off.

    pydicom takes the end of the file for the end of the data set wherever it comes: behind half an element's
    head, before the end of a value (which it then has skipped to a place beyond the file), or within a
    sequence (it then drops all it has read).
    """
    for tag in _TAGS:
        _check_held(dataset, tag)
    directory = tags.uid(dataset.file_meta, "MediaStorageSOPClassUID") == MediaStorageDirectoryStorage
    return stream.partial or stream.tell() != stream.size or (len(dataset) == 0 and not directory)


def transfer_syntax(dataset: Dataset) -> tuple[UID, bool]:
    """Return the transfer syntax and whether the object states it.

    Without file meta information the encoding that the parser found is taken, which can only be one of
    the three uncompressed syntaxes; a data set made in memory counts as implicit little endian.
    """
    stated = tags.text(getattr(dataset, "file_meta", None) or Dataset(), "TransferSyntaxUID")
    if stated:
        return quietly(lambda: UID(stated), lambda: tags.unreadable("TransferSyntaxUID")), True
    implicit, little = dataset.original_encoding
    if implicit is None or implicit:
        return ImplicitLittle, False
    return (ExplicitLittle if little else ExplicitVRBigEndian), False


def _inflated(data: bytes) -> bytes | None:
    """Return a deflated object (PS3.5 A.5) as the same object in Explicit VR Little Endian; None for others.

    The data set is inflated in steps and counted: a bomb is refused before it is parsed.
    """
    start, place = 0, None
    for element, _, first, length in _file_meta(data):
        start = first + length
        if element == 0x0010:
            value = data[first:start] if length < 65 else b""
            place = first if value.rstrip(b"\0 ") == DeflatedExplicitVRLittleEndian.encode() else None
    if place is None:
        return None
    inflater, parts, total, rest = zlib.decompressobj(-zlib.MAX_WBITS), [], 0, data[start:]
    try:
        while rest and not inflater.eof and total <= MAX_INFLATED_BYTES:
            parts.append(inflater.decompress(rest, 1 << 24))
            total += len(parts[-1])
            rest = inflater.unconsumed_tail
    except zlib.error:
        raise broken("the deflated DICOM data set is damaged") from None
    if total > MAX_INFLATED_BYTES:
        raise ImageError(
            "image.too-large",
            "the deflated DICOM data set expands beyond the size limit",
            expected=f"at most {MAX_INFLATED_BYTES} bytes",
        )
    if not inflater.eof:
        raise broken("the deflated DICOM data set is damaged")
    plain = ExplicitLittle.encode().ljust(len(DeflatedExplicitVRLittleEndian), b"\0")
    return b"".join([data[:place], plain, data[place + len(plain) : start], *parts])


def _check_file_meta(data: bytes) -> None:
    """Refuse sequences in the file meta information: PS3.10 7.1 has none.

    pydicom writes the value of (0002,0000) into a log message before anyone can stop it, and the text of
    damaged sequences within sequences doubles with each level: minutes and gigabytes from a small file.
    """
    for _, vr, _, length in _file_meta(data):
        if vr == b"SQ" or length == _UNDEFINED:
            raise broken("the file meta information holds a sequence")


def _file_meta(data: bytes) -> Iterator[tuple[int, bytes, int, int]]:
    """Yield element number, VR, start and length of each value of the file meta information (PS3.10 7.1).

    Values are found where pydicom finds them: behind what is no VR it takes a length of 32 bits.
    """
    position = _PREAMBLE + 4 if data[_PREAMBLE : _PREAMBLE + 4] == b"DICM" else 0
    while data[position : position + 2] == b"\x02\0" and position + 8 <= len(data):
        vr = data[position + 4 : position + 6]
        if not b"AA" <= vr <= b"ZZ":
            size, first = data[position + 4 : position + 8], position + 8
        elif vr in _LONG_VRS:
            size, first = data[position + 8 : position + 12], position + 12
        else:
            size, first = data[position + 6 : position + 8], position + 8
        length = int.from_bytes(size, "little")
        yield int.from_bytes(data[position + 2 : position + 4], "little"), vr, first, length
        position = first + length
