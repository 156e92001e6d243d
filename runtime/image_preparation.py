"""Who prepares an image: the CPU, or the device with the CPU in its place where it must; never silently."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Literal

from promptray.runtime.bundle.image_rules import Preprocessing
from promptray.runtime.engines.facts import EngineFacts
from promptray.runtime.picture import Notice, Picture, notice
from promptray.runtime.preprocess import NetworkInput, preprocess
from promptray.runtime.reduction import halvings

if TYPE_CHECKING:
    from promptray.runtime.dicom.greyscale import Tabulated
    from promptray.runtime.prepare_graph import PrepareFeeds, StoredImage

Where = Literal["cpu", "device"]


class ImagePreparation:
    """From a picture to what a chain takes. Thread-safe.

    Parameters
    ----------
    spec : Preprocessing
        Of the bundle.
    engines : EngineFacts or None
        A set that prepares images; None: the CPU does.
    most_halvings : int
        How often JPEG 2000 may be halved in decoding, where the network needs it no finer; only where the CPU
        prepares. 0: it is decoded whole.

    Attributes
    ----------
    on_device : bool
    halvings : callable or None
        (rows, columns) -> how often a picture may be halved in decoding; None: not at all.
    """

    def __init__(self, spec: Preprocessing, engines: EngineFacts | None, *, most_halvings: int = 0) -> None:
        self.halvings = (
            partial(halvings, spec, most=most_halvings) if most_halvings and engines is None else None
        )
        self._spec, self.on_device = spec, engines is not None
        self._sides = engines.settings.sides if engines else None
        self._feeds = _feeds(spec) if engines else None

    def image(self, picture: Picture) -> tuple[NetworkInput | StoredImage, tuple[Notice, ...]]:
        """Return the image for a chain, and what to know about it.

        Raises
        ------
        ImageError
            ``image.too-small`` or ``image.too-large``.
        """
        if self._feeds is None:
            return preprocess(picture.shown, self._spec, picture.geometry), picture.notices
        tabulated = self._tabulated(picture)
        if tabulated is None:
            on_cpu = preprocess(picture.shown, self._spec)
            return on_cpu, (*picture.notices, notice("prepared-on-cpu"))
        return self._feeds.image(tabulated), picture.notices

    def _tabulated(self, picture: Picture) -> Tabulated | None:
        """Return what the device takes of a picture, None where the CPU has to prepare it.

        That is a picture in colour, one larger than the engine takes, and DICOM in more than 16 bits, of
        which there is no table. PNG, JPEG and arrays are their own grey.
        """
        sides = self._sides
        within = sides and all(sides.least <= side <= sides.most for side in picture.grey.shape)
        if not within or picture.colour is not None:
            return None
        if picture.tabulated is None and picture.source.kind != "dicom":
            from promptray.runtime.dicom.greyscale import Tabulated

            return Tabulated.of_grey(picture.grey)
        return picture.tabulated


def _feeds(spec: Preprocessing) -> PrepareFeeds:
    """Make what the device is fed with; only who asks for the device waits for the import."""
    from promptray.runtime.prepare_graph import PrepareFeeds

    return PrepareFeeds(spec)
