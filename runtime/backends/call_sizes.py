"""How many images one call takes: a few sizes and no others.

Every size needs memory of its own on the device, and kernels of its own whose last bits may differ. So there
are few, memory is bounded by them, and the gate of a set of engines runs each.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def call_sizes(tuned: Iterable[int], most: int) -> tuple[int, ...]:
    """Return the sizes that calls are made with, ascending.

    They are the powers of two, what the engines are tuned for, and the most that they take. Powers of two
    together take less than twice the memory of the largest, and any number of images is few of them.

    Parameters
    ----------
    tuned : iterable of int
    most : int

    Examples
    --------
    >>> call_sizes([6], 10)
    (1, 2, 4, 6, 8, 10)
    """
    powers = (1 << place for place in range(most.bit_length()))
    return tuple(sorted({size for size in (*powers, *tuned, most) if size <= most}))


def parts_of(images: int, sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Split images into calls, the largest first; nothing is padded.

    Parameters
    ----------
    images : int
    sizes : sequence of int
        Of :func:`call_sizes`.

    Returns
    -------
    list of (int, int)
        The first image of each call and the one after its last.

    Examples
    --------
    >>> parts_of(11, (1, 2, 4))
    [(0, 4), (4, 8), (8, 10), (10, 11)]
    """
    parts, first = [], 0
    while first < images:
        size = max(each for each in sizes if each <= images - first)
        parts.append((first, first + size))
        first += size
    return parts
