"""Typed reading of the few tags that are needed; a bad value is refused by the tag's name, never quoted."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from promptray.runtime.dicom.quiet import quietly
from promptray.runtime.errors import ImageError
from promptray.runtime.limits import MAX_ELEMENT_BYTES

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def unreadable(keyword: str, why: str = "cannot be read") -> ImageError:
    """Return the refusal of a tag: its name and what is wrong, without its value."""
    return ImageError(
        "dicom.tags",
        f"the tag {keyword} {why}",
        cure="export the object again from its archive, or have its header corrected",
    )


#: A decimal or integer string (PS3.5 6.2), padding included. Python's own rules also take ``1_0``.
_DECIMAL = re.compile(r"[ \0]*[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?[ \0]*")


def element_value(dataset: Dataset, keyword: str) -> Any:
    """Return a tag's value as pydicom gives it; None where the tag is absent or empty."""
    raw = quietly(lambda: dataset.get_item(keyword), lambda: unreadable(keyword))
    stored = getattr(raw, "value", None)
    if isinstance(stored, (bytes, memoryview)) and len(stored) > MAX_ELEMENT_BYTES and keyword != "PixelData":
        # pydicom would quote a value of the wrong length in an exception, four characters to the byte.
        raise unreadable(keyword, f"holds more than {MAX_ELEMENT_BYTES} bytes")
    value = quietly(lambda: dataset.get(keyword), lambda: unreadable(keyword))
    return None if value is None or (hasattr(value, "__len__") and len(value) == 0) else value


def text(dataset: Dataset, keyword: str) -> str | None:
    """Return a single text value without padding; None where absent or empty."""
    value = element_value(dataset, keyword)
    if value is None:
        return None
    if not isinstance(value, str):
        raise unreadable(keyword, "does not hold one text value")
    return value.strip(" \0") or None


def uid(dataset: Dataset, keyword: str) -> str | None:
    """Return a UID; None where it is absent or not dots and digits (PS3.5 9.1), so never free text."""
    value = text(dataset, keyword)
    return value if value and re.fullmatch(r"[0-9.]{1,64}", value) else None


def numbers(dataset: Dataset, keyword: str) -> tuple[float, ...]:
    """Return all values of a numeric tag as finite floats; empty where absent."""
    value = element_value(dataset, keyword)
    if value is None:
        return ()
    many = [value] if isinstance(value, (int, float, str)) else value
    if not all(_DECIMAL.fullmatch(written) for written in map(_written, many) if written is not None):
        raise unreadable(keyword, "is written with characters that no number has")
    floats = quietly(lambda: tuple(float(one) for one in many), lambda: unreadable(keyword))
    if not all(math.isfinite(one) for one in floats):
        raise unreadable(keyword, "holds a value that is not finite")
    return floats


def _written(number: object) -> str | None:
    """Return what the file holds for a decimal or integer string; None for binary numbers."""
    written = getattr(number, "original_string", None)
    return written if isinstance(written, str) else None


def integer(dataset: Dataset, keyword: str) -> int | None:
    """Return a single whole number; None where absent."""
    values = numbers(dataset, keyword)
    if not values:
        return None
    if len(values) != 1 or values[0] != int(values[0]):
        raise unreadable(keyword, "does not hold one whole number")
    return int(values[0])


def required(dataset: Dataset, keyword: str) -> int:
    """Return a single whole number that must be there."""
    value = integer(dataset, keyword)
    if value is None:
        raise unreadable(keyword, "is absent, and the pixels cannot be read without it")
    return value


def items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """Return the items of a sequence; empty where absent."""
    value = element_value(dataset, keyword)
    if value is None:
        return []
    from pydicom.dataset import Dataset  # loaded already: there is a data set

    entries = quietly(lambda: list(value), lambda: unreadable(keyword))
    if not all(isinstance(entry, Dataset) for entry in entries):
        raise unreadable(keyword, "is not a sequence")
    return entries
