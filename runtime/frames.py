"""Frames are counted from 1, as DICOM does, and never guessed."""

from __future__ import annotations

from promptray.runtime.errors import ImageError


def choose_frame(frames: int, frame: int | None) -> int:
    """Return the index (from 0) of the wanted frame (from 1); refuse to guess among several."""
    if frame is None and frames == 1:
        return 0
    if frame is None or not 1 <= frame <= frames:
        raise ImageError(
            "dicom.frame",
            "the object has several frames" if frame is None else "the object has no such frame",
            expected=f"frame= from 1 to {frames}",
            found="none chosen" if frame is None else f"frame={frame}",
            cure="name the frame to score, counted from 1",
        )
    return frame - 1
