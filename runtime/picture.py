"""The picture that comes through the door: 8-bit pixels, where they come from, and what was noticed."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from promptray.runtime.geometry import AxisMap, Geometry

if TYPE_CHECKING:
    from promptray.runtime.dicom.greyscale import Tabulated

#: Every stable notice code with its meaning. A notice accompanies a score; in strict mode those about
#: absent tags are refusals instead.
NOTICES: dict[str, str] = {
    "modality-absent": "The DICOM object does not state its modality.",
    "body-part-absent": "The DICOM object does not state the body part.",
    "window-absent": "There is no window and no VOI LUT: the image's own value range was stretched.",
    "file-meta-absent": "The DICOM file states no transfer syntax: it was taken from the data set itself.",
    "sign-absent": "The DICOM object does not state the sign of its pixels: they were taken as unsigned.",
    "secondary-capture": "A Secondary Capture: converted from another form, not the modality's own object.",
    "prompt-empty": "Nothing was left of a prompt after cleaning: all such prompts score alike.",
    "prompt-truncated": "A prompt was longer than the model's context and was cut.",
    "prompt-duplicate": "Prompts are the same text after cleaning, so they score alike.",
    "group-incomplete": "Findings of a group are not scored, so the group has no share.",
    "site-prompts-changed": "The site's prompts were changed meanwhile: open the scorer again to score them.",
    "calibration-wording": "A finding was calibrated with another wording, or encoding of it, than now.",
    "calibration-engine": "A finding was calibrated on scores of another backend or precision.",
    "calibration-machine": "A finding was calibrated on another machine class, engine or preparation.",
    "calibration-strict": "A finding was calibrated on images whose absent tags are refused, not noted.",
    "study-absent": "Images state no study: nothing but the caller says that they belong together.",
    "view-repeated": "Several images show the same view: their mean was taken for it.",
    "burned-in-text": "The DICOM object states that text is burned into its pixels.",
    "prepared-on-cpu": "The device was asked to prepare images and cannot this one: the CPU prepared it.",
    "reduced-decode": "JPEG 2000 was decoded at a lower resolution, as asked: scores differ a little.",
    "coloured": "The picture has coloured pixels, as no radiograph has; the model was shown its colours.",
    "narrow-range": "The picture uses less than an eighth of the grey range: were its values windowed?",
    "inversion-suspected": "The middle is darker than the rest: black and white may be swapped.",
}


Kind = Literal["dicom", "png", "jpeg", "array"]


@dataclass(frozen=True)
class Notice:
    """Something a user should know about the input; `code` is one of :data:`NOTICES`."""

    code: str
    message: str

    def __post_init__(self) -> None:
        if self.code not in NOTICES:
            raise ValueError(f"unregistered notice code {self.code!r}")

    def to_json(self) -> dict[str, str]:
        """Return the notice as results print it."""
        return {"code": self.code, "message": self.message}


def notice(code: str) -> Notice:
    """Return the notice of a code with its registered meaning."""
    return Notice(code, NOTICES[code])


@dataclass(frozen=True)
class SourceFacts:
    """What is known of a picture's origin: the tags that the result schema names, and no others.

    Attributes
    ----------
    kind : {'dicom', 'png', 'jpeg', 'array'}
        How the picture came.
    rows, columns : int
        Size of the picture as displayed (after an EXIF orientation).
    modality : str or None
        Modality (0008,0060), or what the caller declared.
    modality_declared : bool
        True when the caller said it and no tag did.
    frame : int or None
        The frame read from a multi-frame object, counted from 1 as DICOM does.
    sop_instance_uid, series_instance_uid, study_instance_uid : str or None
        For results only, never for logs.
    pixel_spacing : (float, float) or None
        Distance between rows and between columns, mm.
    pixel_spacing_source : str or None
        The attribute it came from: `PixelSpacing` is calibrated to the patient where the object says so,
        `ImagerPixelSpacing` is at the detector, `NominalScannedPixelSpacing` on the scanned film.
    transfer_syntax : str or None
        Transfer syntax UID.
    view : str or None
        Projection as the tags state it in the standard's terms, for example ``PA`` or ``MLO``; two terms
        joined by a slash where tags contradict each other.
    laterality : str or None
        ``L``, ``R``, ``B`` (both) or ``U`` (unpaired) as the tags state it; joined likewise.
    view_modifiers : tuple of str
        What sets the image apart from the plain view, for example ``spot compression``.
    """

    kind: Kind
    rows: int
    columns: int
    modality: str | None = None
    modality_declared: bool = False
    frame: int | None = None
    sop_instance_uid: str | None = None
    series_instance_uid: str | None = None
    study_instance_uid: str | None = None
    pixel_spacing: tuple[float, float] | None = None
    pixel_spacing_source: str | None = None
    transfer_syntax: str | None = None
    view: str | None = None
    laterality: str | None = None
    view_modifiers: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Picture:
    """An 8-bit picture that passed the door: its grey and, where the model takes it, its colour.

    Attributes
    ----------
    grey : ndarray of uint8, shape (rows, columns)
        0 is black. C-contiguous.
    source : SourceFacts
        Where it comes from.
    notices : tuple of Notice
        What to know about it.
    timing : dict of str to float
        Milliseconds for `read` (file and header), `decode` (pixels), `window` (to 8-bit grey) and `check`
        (the policy table, on tags and pixels).
    colour : ndarray of uint8, shape (rows, columns, 3), or None
        Red, green and blue of a coloured source, where the model takes colour.
    tabulated : Tabulated or None
        The stored values that `grey` was looked up from, where they were kept.
    reduction : int
        How often rows and columns were halved in decoding; 0 where the picture is whole.
    """

    grey: NDArray[np.uint8]
    source: SourceFacts
    notices: tuple[Notice, ...] = ()
    timing: dict[str, float] = field(default_factory=dict)
    colour: NDArray[np.uint8] | None = None
    tabulated: Tabulated | None = None
    reduction: int = 0

    @property
    def geometry(self) -> Geometry:
        """From the original picture to this one.

        The wavelets of JPEG 2000 keep every second sample where it is (ISO 15444-1 F.3), so a halved picture
        lies half a pixel nearer to its origin than one whose pixels were averaged in pairs.
        """
        whole = Geometry.identity(self.source.rows, self.source.columns)
        if not self.reduction:
            return whole
        scale = 0.5**self.reduction
        halved = AxisMap(scale, 0.5 - 0.5 * scale)
        rows, columns = self.grey.shape
        return whole.then(rows, columns, halved, halved)

    @property
    def shown(self) -> NDArray[np.uint8]:
        """What the network is shown: the colour where it is kept, else the grey."""
        return self.grey if self.colour is None else self.colour


class Clock:
    """Milliseconds per stage; stages that a source does not have stay at zero."""

    def __init__(self) -> None:
        self.laps = {"read": 0.0, "decode": 0.0, "window": 0.0, "check": 0.0}
        self._last = time.perf_counter()

    def lap(self, stage: str) -> None:
        """Give the time since the last lap to a stage."""
        now = time.perf_counter()
        self.laps[stage] += (now - self._last) * 1e3
        self._last = now
