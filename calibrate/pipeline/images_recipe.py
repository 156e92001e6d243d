"""A folder of images, as several sections of a recipe name one."""

from __future__ import annotations

import msgspec

from promptray.runtime.bundle.fields import Text


class ImagesRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A folder of images. Paths are relative to the recipe's folder."""

    images: Text
    """The folder, with any sub-folders: DICOM, PNG, JPEG."""
    labels: Text | None = None
    """A CSV as `promptray evaluate` reads it: which of the images, whose they are, what is in them. Without
    one, every file of the folder."""
    source: Text
    """What the images are, for people: the name of a data set, never of a patient."""
