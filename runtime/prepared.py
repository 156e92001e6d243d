"""An image between its two steps: read and checked by ``prepare``, not yet scored by ``infer``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from promptray.runtime.picture import Notice, SourceFacts
from promptray.runtime.preprocess import NetworkInput


@dataclass(frozen=True, eq=False)
class Prepared:
    """An image ready for the network. Made by :meth:`promptray.runtime.scorer.Scorer.prepare` in any thread.

    Attributes
    ----------
    network_input : NetworkInput
        8-bit picture, float32 pixels (1, channels, height, width) and geometry.
    source : SourceFacts
        Where the picture comes from. Its full-size pixels are not kept: a queue of them would fill the
        memory.
    notices : tuple of Notice
        What to know about it.
    timing : dict of str to float
        Milliseconds so far.
    name : str
        Base name of the file, or the kind of object.
    bundle : str
        Hash of the bundle whose door and preprocessing it went through; no other bundle scores it.
    """

    network_input: NetworkInput
    source: SourceFacts
    notices: tuple[Notice, ...]
    timing: Mapping[str, float]
    name: str
    bundle: str
