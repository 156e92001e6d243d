"""Which images a device prepares, and which the CPU does in its place: said for each image, never silent."""

from __future__ import annotations

from dataclasses import replace

from promptray.runtime.bundle.image_rules import Preprocessing
from promptray.runtime.dicom.greyscale import Tabulated
from promptray.runtime.engines.settings import Settings
from promptray.runtime.picture import Picture, notice
from promptray.runtime.prepare_graph import PrepareFeeds, StoredImage

CPU, DEVICE = "cpu", "device"


class DevicePrepare:
    """Makes of pictures what a device takes. Thread-safe.

    Parameters
    ----------
    spec : Preprocessing
        Of the bundle.
    settings : Settings
        Of the engines: sizes that the one that prepares was built for.
    """

    def __init__(self, spec: Preprocessing, settings: Settings) -> None:
        self._feeds, self._sides = PrepareFeeds(spec), settings.sides

    def image(self, picture: Picture) -> StoredImage | None:
        """Return the image as the device takes it, None for one that the CPU has to prepare.

        That is one in colour, one larger than the engine takes, and DICOM in more than 16 bits, of which no
        table can be made. PNG, JPEG and arrays are their own grey.

        Raises
        ------
        ImageError
            ``image.too-small`` or ``image.too-large``, as on the CPU.
        """
        within = all(self._sides.least <= side <= self._sides.most for side in picture.grey.shape)
        tabulated = picture.tabulated
        if tabulated is None and picture.source.kind != "dicom":
            tabulated = Tabulated.of_grey(picture.grey)
        if picture.colour is not None or not within or tabulated is None:
            return None
        return self._feeds.image(tabulated)


def prepared_on_cpu(picture: Picture) -> Picture:
    """Return a picture with the notice that the CPU prepares it, though the device was asked to."""
    return replace(picture, notices=(*picture.notices, notice("prepared-on-cpu")))
