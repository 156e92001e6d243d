"""The refusal of damaged DICOM content."""

from __future__ import annotations

from promptray.runtime.errors import ImageError


def broken(message: str) -> ImageError:
    """Return the refusal of an object that is truncated, damaged or contradicts itself."""
    return ImageError("image.broken", message, cure="export the object again from its archive")
