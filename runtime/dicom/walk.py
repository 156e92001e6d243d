"""Where the codes of a stream begin, when nothing but each code itself says where the next one does.

One walk would take a step of Python for each code. But walks through the same stream that began at different
places soon meet, and go on as one. So a walk sets out from the beginning of every stretch of the stream, all
in step and by NumPy; then the true walk is followed through each stretch, only until it meets that one's own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

#: Places of a stretch: some hundred codes, of which the first few tens are those before walks meet.
_STRETCH = 4096
#: Steps between two looks at which walks have come to the end of their stretch.
_STEPS = 32


def walk(steps: NDArray[np.uint8], start: int) -> tuple[NDArray[np.int64], int]:
    """Go from place to place, each time by the step that stands there.

    Parameters
    ----------
    steps : ndarray of uint8, shape (places,)
        All at least 1.
    start : int
        Where the walk begins; it may be beyond the last place.

    Returns
    -------
    visited : ndarray of int64
        The places that the walk comes to, ascending.
    beyond : int
        The first place after the last one that it comes to.
    """
    size = len(steps)
    if start >= size:
        return np.empty(0, np.int64), start
    begins = np.arange(start, size, _STRETCH)
    ends = np.append(begins[1:], size)
    marks = bytearray(size + 1)
    _walk_all(steps, begins, ends, np.frombuffer(marks, np.uint8))
    arrived, step_at = start, steps.data
    for begin, end in zip(begins.tolist(), ends.tolist(), strict=True):
        place, own = arrived, []
        while place < end and not marks[place]:
            own.append(place)
            place += step_at[place]
        met = min(place, end)
        marks[begin:met] = bytes(met - begin)
        for each in own:
            marks[each] = 1
        last = marks.rfind(1, met, end)
        arrived = place if last < 0 else last + step_at[last]
    return np.flatnonzero(np.frombuffer(marks, np.bool_)[:size]), arrived


def _walk_all(
    steps: NDArray[np.uint8], begins: NDArray[np.int64], ends: NDArray[np.int64], marks: NDArray[np.uint8]
) -> None:
    """Mark the places of a walk through each stretch. One that is through waits where the next one began."""
    steps = np.append(steps, np.uint8(0))
    place = begins.copy()
    while place.size:
        for _ in range(_STEPS):
            marks[place] = 1
            place += steps[place]
            np.minimum(place, ends, out=place)
        going = place < ends
        place, ends = place[going], ends[going]
