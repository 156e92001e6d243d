"""Where fuzzing begins: small valid inputs of every kind, and the words of their formats."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydicom import uid
from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from promptray.runtime.dicom.read import KEYWORDS
from tests import dicom_factory as factory

DATA = Path(__file__).parents[1] / "data"
#: Larger ones slow every mutation down and add little.
LARGEST = 10_000

_SYNTAXES = [
    *(uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian),
    *(uid.DeflatedExplicitVRLittleEndian, uid.RLELossless, uid.JPEGLSLossless, uid.JPEG2000Lossless),
]


def dicom() -> dict[str, bytes]:
    """One small film in many encodings, films with every optional part, and the small committed files."""
    made = {
        path.name: path.read_bytes()
        for path in sorted((DATA / "dicom" / "files").glob("*.dcm"))
        if path.stat().st_size < LARGEST
    }
    film = factory.ramp(36, 40)
    for syntax in _SYNTAXES:
        made[syntax.name] = _encoded(film, syntax)
    made["jpeg"] = _jpeg_film(film)
    made["bare implicit"] = factory.encode_bare(factory.dataset(film))
    made["bare explicit"] = factory.encode_bare(factory.dataset(film), implicit=False)
    made["frames"] = factory.file(np.stack([film, film[::-1]]))
    made["signed"] = factory.file(film.astype(np.int16) - 2000, BitsStored=16, HighBit=15)
    made["rescaled"] = factory.file(
        film, RescaleSlope="-1.5", RescaleIntercept="7", PhotometricInterpretation="MONOCHROME1",
        PresentationLUTShape="INVERSE", VOILUTFunction="SIGMOID", PixelPaddingValue=4095,
        PixelPaddingRangeLimit=4000,
    )  # fmt: skip
    made["tables"] = factory.file(film, VOILUTSequence=[_table()], ModalityLUTSequence=[_table()])
    groups = Dataset()
    groups.FrameVOILUTSequence = [_item(WindowCenter=2000, WindowWidth=3000)]
    groups.PixelValueTransformationSequence = [_item(RescaleSlope=2, RescaleIntercept=1)]
    groups.PixelMeasuresSequence = [_item(PixelSpacing=[0.1, 0.2])]
    made["groups"] = factory.file(
        film, SharedFunctionalGroupsSequence=[groups], PerFrameFunctionalGroupsSequence=[groups]
    )
    return made


def _encoded(film: np.ndarray[Any, Any], syntax: uid.UID) -> bytes:
    plain = factory.dataset(film)
    if not syntax.is_compressed or syntax.is_deflated:
        return factory.encode(plain, syntax)
    factory.encode(plain)  # gives it the file meta information that compressing needs
    plain.compress(syntax)
    return factory.encode(plain, syntax)


def _jpeg_film(film: np.ndarray[Any, Any]) -> bytes:
    made = factory.dataset((film >> 4).astype(np.uint8))
    made.PixelData = encapsulate([_image(film, "jpeg")])
    made["PixelData"].VR = "OB"
    return factory.encode(made, uid.JPEGBaseline8Bit)


def _table() -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [64, 0, 12])
    item.add_new("LUTData", "US", list(range(0, 4096, 64)))
    return item


def _item(**tags: Any) -> Dataset:
    item = Dataset()
    for keyword, value in tags.items():
        setattr(item, keyword, value)
    return item


def png() -> dict[str, bytes]:
    """Every colour type, interlaced, with the ancillary chunks that are read."""
    film = factory.ramp(36, 40)
    colour = np.stack([(film >> shift).astype(np.uint8) for shift in (4, 5, 6)], axis=2)
    exif = Image.Exif()
    exif[0x0112] = 6
    made = {mode: _image(colour, "png", mode=mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")}
    made["16 bits"] = _image(film, "png")
    made["exif"] = _image(film, "png", exif=exif)
    made["profile"] = _image(colour, "png", icc_profile=b"no profile")
    # Pillow writes no interlaced file, but fuzzing finds the flag: the fourth byte after the size.
    return made


def jpeg() -> dict[str, bytes]:
    """Grey and colour, baseline and progressive, with an orientation and a comment."""
    film = factory.ramp(36, 40)
    colour = np.stack([(film >> 4).astype(np.uint8)] * 3, axis=2)
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "grey": _image(film, "jpeg"),
        "progressive": _image(film, "jpeg", progressive=True),
        "colour": _image(colour, "jpeg", exif=exif, comment=b"comment"),
        "restarts": _image(colour, "jpeg", restart_marker_rows=1, optimize=True),
    }


def _image(picture: np.ndarray[Any, Any], kind: str, mode: str | None = None, **options: Any) -> bytes:
    if kind == "jpeg" and picture.ndim == 2:
        picture = (picture >> 4).astype(np.uint8)
    image, stream = Image.fromarray(picture), io.BytesIO()
    (image.convert(mode) if mode else image).save(stream, kind, **options)
    return stream.getvalue()


def recipe() -> dict[str, bytes]:
    """The good and bad recipes of the tests."""
    return {path.name: path.read_bytes() for path in sorted((DATA / "recipes").glob("*.yaml"))}


def _tag_words() -> list[bytes]:
    tags = [tag for tag in map(tag_for_keyword, KEYWORDS) if tag is not None]
    return [struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF) for tag in tags for order in "<>"]


DICOM_WORDS = (
    *_tag_words(),
    *(vr.encode() for vr in "AE AS AT CS DA DS DT FL FD IS LO LT OB OW PN SH SQ SS ST UI UL UN US".split()),
    *(b"\xff\xff\xff\xff", b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0"),
    *(syntax.encode() for syntax in _SYNTAXES),
    *(b"1.2.840.10008.1.2.4.50", b"MONOCHROME1 ", b"MONOCHROME2 ", b"SIGMOID ", b"1e999", b"-0", b"nan"),
)
PNG_WORDS = (
    b"IHDR",
    b"IDAT",
    b"PLTE",
    b"IEND",
    b"eXIf",
    b"gAMA",
    b"sRGB",
    b"iCCP",
    b"cICP",
    b"tRNS",
    b"acTL",
)
JPEG_WORDS = tuple(bytes([0xFF, marker]) for marker in (0xC0, 0xC2, 0xC4, 0xD8, 0xD9, 0xDA, 0xDB, 0xDD, 0xE1))
BUNDLE_WORDS = (
    *(b'"rows"', b'"prompts"', b'"float32"', b'"dims"', b'"size": 16384', b'"grid": [', b"null", b"1e308"),
    *(b'"dtype":"F32"', b'"data_offsets":[', b"__metadata__", b'"type":"', b'"Regex":"', b"\\ud800", b"-1"),
)
RECIPE_WORDS = (b"&a ", b"*a", b"<<: ", b"!!python/name:os.system ", b"? ", b"- ", b": ", b"|\n", b"\\ud800")
