"""An image between its two steps: read and checked by ``prepare``, not yet scored by ``infer``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from promptray.runtime.geometry import Geometry
from promptray.runtime.picture import Notice, SourceFacts
from promptray.runtime.preprocess import NetworkInput

if TYPE_CHECKING:
    from promptray.runtime.prepare_graph import StoredImage


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image ready for the network. Made by :meth:`promptray.runtime.scorer.Scorer.prepare` in any thread.

    Attributes
    ----------
    image : NetworkInput or StoredImage
        8-bit picture, float32 pixels (1, channels, height, width) and geometry; or, where the device brings
        it to that, the image at its original size: a queue of those takes more memory.
    source : SourceFacts
        Where the picture comes from.
    notices : tuple of Notice
        What to know about it.
    timing : dict of str to float
        Milliseconds so far.
    name : str
        Base name of the file, or the kind of object.
    bundle : str
        Hash of the bundle whose door and preprocessing it went through; no other bundle scores it.
    """

    image: NetworkInput | StoredImage
    source: SourceFacts
    notices: tuple[Notice, ...]
    timing: Mapping[str, float]
    name: str
    bundle: str

    @property
    def network_input(self) -> NetworkInput:
        """The picture as the network sees it; of what a device prepares, as the CPU would make it."""
        return self.image if isinstance(self.image, NetworkInput) else self.image.network_input

    @property
    def geometry(self) -> Geometry:
        """From the original picture to the network's plane."""
        return self.image.geometry

    @property
    def incoming(self) -> Any:
        """What a chain takes."""
        return self.image.pixels if isinstance(self.image, NetworkInput) else self.image
