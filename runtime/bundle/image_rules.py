"""The manifest's rules for images: what may enter, and how it becomes the network's input."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from promptray.runtime.bundle.fields import Side, Text


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the rules: immutable, keyword-only, closed."""


class Door(_Struct, frozen=True):
    """What may enter: the policy table of section 'door' in the format document."""

    modalities: Annotated[list[Text], Meta(min_length=1)]
    """DICOM modalities (0008,0060) the model was made for, for example CR and DX."""
    refused_body_parts: list[Text] = []
    """Body parts (0018,0015) that contradict the model; compared by :func:`body_part_words`."""
    minimum_side: Side = 32
    """Least number of rows and of columns, pixels."""


class Greyscale(_Struct, frozen=True):
    """How a DICOM image becomes 8-bit grey, PS3.3 C.11: modality LUT, then VOI, then rounding."""

    voi: Literal["first-window"] = "first-window"
    """Which of several windows is used; a VOI LUT sequence takes precedence over windows."""
    without_voi: Literal["full-range"] = "full-range"
    """Without window or VOI LUT: stretch the image's own least and greatest value, padding left out."""
    rounding: Literal["half-up"] = "half-up"


#: OpenCV's INTER_AREA and INTER_LINEAR; Pillow's antialiased filters of these names; ``cubic`` is torch's
#: bicubic, which is not antialiased.
Interpolation = Literal["area", "linear", "lanczos", "bilinear", "bicubic", "cubic"]
#: Those that take and give whole levels only.
WHOLE_LEVELS = ("area", "linear", "lanczos")


class ResizeLongerSide(_Struct, frozen=True, tag_field="op", tag="resize_longer_side"):
    """Scale the longer side to `size` pixels keeping the aspect."""

    size: Side
    interpolation: Interpolation = "area"
    rounding: Literal["truncate", "truncate-both", "nearest"] = "truncate"
    """How the other side becomes a whole number; ``nearest`` takes halves to the even one. ``truncate-both``
    also truncates the longer side's product, which rounding may leave a hair below `size`."""


class ResizeShorterSide(_Struct, frozen=True, tag_field="op", tag="resize_shorter_side"):
    """Scale the shorter side to `size` pixels keeping the aspect; the other side is truncated."""

    size: Side
    interpolation: Interpolation = "bicubic"


class Squash(_Struct, frozen=True, tag_field="op", tag="squash"):
    """Scale to `size` x `size`, whatever the aspect was."""

    size: Side
    interpolation: Interpolation = "bicubic"


class PadSquare(_Struct, frozen=True, tag_field="op", tag="pad_square"):
    """Pad to `size` x `size`, centred; the odd pixel goes after (right, bottom)."""

    size: Side
    value: Annotated[int, Meta(ge=0, le=255)] = 0


class CentreCrop(_Struct, frozen=True, tag_field="op", tag="centre_crop"):
    """Cut the central `size` x `size` square."""

    size: Side


Step = ResizeLongerSide | ResizeShorterSide | Squash | PadSquare | CentreCrop


class Normalise(_Struct, frozen=True):
    """float32 arithmetic on the 8-bit picture: ((v / 255) - mean) / std, per channel."""

    mean: list[float]
    std: list[float]


class Preprocessing(_Struct, frozen=True):
    """From a stored image to the network's input tensor (1, channels, height, width) float32."""

    greyscale: Greyscale
    steps: Annotated[list[Step], Meta(min_length=1)]
    normalise: Normalise
    channels: Literal[1, 3]
    """3 means that a grey picture is copied to three channels before `normalise`."""
    height: Side
    width: Side
    colour: Literal["grey", "rgb"] = "grey"
    """What becomes of a coloured PNG, JPEG or array: its grey, or its three channels. DICOM must be grey."""
    levels: Literal["uint8", "float32"] = "uint8"
    """Whether a resized picture is rounded to 8 bits or keeps fractions of its 0..255 levels. With
    ``float32`` it keeps them from the first filter on that can; :data:`WHOLE_LEVELS` cannot."""
