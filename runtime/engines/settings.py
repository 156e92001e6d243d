"""How engines are built: the sizes they accept and are tuned for, and the memory a build may take."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta

from promptray.runtime.limits import MAX_SIDE

#: How a compute capability is written.
CAPABILITY = r"[0-9]{1,2}\.[0-9]"
Capability = Annotated[str, Meta(max_length=8, pattern=rf"^{CAPABILITY}(?!\n)$")]
#: Images and prompts of one call, and bytes of scratch memory, beyond which no device goes.
MOST_IMAGES, MOST_PROMPTS, MOST_WORKSPACE = 1024, 65536, 1 << 40
Size = Annotated[int, Meta(ge=1, le=(1 << 31) - 1)]
Workspace = Annotated[int, Meta(ge=1, le=MOST_WORKSPACE)]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the structures: immutable, keyword-only, closed."""


class Range(_Struct, frozen=True, kw_only=True):
    """Sizes of a dynamic dimension that an engine accepts, and the one that it is tuned for."""

    least: Size = 1
    tuned: Size
    most: Size

    @property
    def rises(self) -> bool:
        """Whether it is a range: the tuned size is inside."""
        return self.least <= self.tuned <= self.most


class Settings(_Struct, frozen=True, kw_only=True):
    """What engines are built with, of a recipe's section ``tensorrt`` or of defaults."""

    images: Range = Range(tuned=1, most=8)
    """Images of one call."""
    prompts: Range | None = None
    """Prompts of one call to a head whose set is free; None: up to 256, or the bundle's own if more, tuned at
    the bundle's own."""
    sides: Range = Range(tuned=2500, most=4608)
    """Rows, and columns, of a frame that the device prepares; larger ones are prepared on the CPU."""
    workspace_bytes: Workspace = 2 << 30
    """Most scratch memory of a layer while building; fits a Jetson with 8 GB."""

    def __post_init__(self) -> None:
        """Refuse sizes that no device takes: a build with them may never end."""
        for key, found, most in self._bounded():
            if found > most:
                raise ValueError(f"{key} is {found}, and at most {most}")

    def _bounded(self) -> Iterator[tuple[str, int, int]]:
        yield "images.most", self.images.most, MOST_IMAGES
        if self.prompts is not None:
            yield "prompts.most", self.prompts.most, MOST_PROMPTS
        yield "sides.most", self.sides.most, MAX_SIDE
        yield "workspace_bytes", self.workspace_bytes, MOST_WORKSPACE
