"""A DICOM data set becomes an 8-bit grey picture with the facts of its origin."""

from __future__ import annotations

from collections.abc import Callable

from pydicom.dataset import Dataset

from promptray.runtime import policy
from promptray.runtime.bundle.image_rules import Door
from promptray.runtime.dicom import tags
from promptray.runtime.dicom.facts import (
    check_has_pixels,
    photometric_facts,
    pixel_format,
    pixel_spacing,
)
from promptray.runtime.dicom.greyscale import LARGEST_CONTAINER, tabulated, to_grey
from promptray.runtime.dicom.pixels import stored_values
from promptray.runtime.dicom.read import read_dataset, transfer_syntax
from promptray.runtime.dicom.reduced import reduced_values
from promptray.runtime.dicom.view import view_facts
from promptray.runtime.frames import choose_frame
from promptray.runtime.picture import Clock, Picture, SourceFacts, notice

__all__ = ["picture_of", "read_dataset"]


def picture_of(
    dataset: Dataset,
    door: Door,
    declared: str | None,
    frame: int | None,
    clock: Clock,
    *,
    keep_stored: bool = False,
    halvings: Callable[[int, int], int] | None = None,
) -> Picture:
    """Check the tags, decode the chosen frame and take it to 8-bit grey.

    Parameters and errors are those of :func:`promptray.runtime.door.open_picture`.
    """
    check_has_pixels(dataset)
    notices = policy.check_tags(dataset, door, declared)
    pixels = pixel_format(dataset)
    syntax, stated = transfer_syntax(dataset)
    index = choose_frame(pixels.frames, frame)
    photometric = photometric_facts(dataset, pixels, index)
    reduced = None
    if halvings and (most := halvings(pixels.rows, pixels.columns)):
        reduced = reduced_values(dataset, syntax, pixels, photometric, index, most)
    stored, reduction = reduced or (stored_values(dataset, syntax, pixels, index), 0)
    clock.lap("decode")
    kept = None
    if keep_stored and stored.dtype.itemsize <= LARGEST_CONTAINER:
        kept = tabulated(stored, photometric)
    grey = to_grey(stored, photometric) if kept is None else kept.grey
    clock.lap("window")
    notices += [] if stated else [notice("file-meta-absent")]
    # Type 1 (PS3.3 C.7.6.3), but not all that was ever written has it; unsigned is what films are.
    notices += [] if tags.integer(dataset, "PixelRepresentation") is not None else [notice("sign-absent")]
    notices += [] if photometric.has_voi else [notice("window-absent")]
    notices += [notice("reduced-decode")] if reduction else []
    tag = tags.text(dataset, "Modality")
    spacing, spacing_source = pixel_spacing(dataset, index)
    view = view_facts(dataset)
    facts = SourceFacts(
        kind="dicom",
        rows=pixels.rows,
        columns=pixels.columns,
        modality=tag or declared,
        modality_declared=tag is None and declared is not None,
        frame=index + 1 if pixels.frames > 1 else None,
        sop_instance_uid=tags.uid(dataset, "SOPInstanceUID"),
        series_instance_uid=tags.uid(dataset, "SeriesInstanceUID"),
        study_instance_uid=tags.uid(dataset, "StudyInstanceUID"),
        pixel_spacing=spacing,
        pixel_spacing_source=spacing_source,
        transfer_syntax=str(syntax),
        view=view.view,
        laterality=view.laterality,
        view_modifiers=view.modifiers,
    )
    return Picture(grey, facts, tuple(notices), clock.laps, tabulated=kept, reduction=reduction)
