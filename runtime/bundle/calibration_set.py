"""The images that a graph was quantised, typed or distilled with, as a bundle tells it."""

from __future__ import annotations

import msgspec

from promptray.runtime.bundle.fields import Count, Sha256, Text


class CalibrationSet(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The images used to quantise or calibrate: count and hash, no patient data."""

    images: Count
    sha256: Sha256
    source: Text
