"""Magnitudes of a tensor over many inputs: a histogram that grows, and the largest of every channel."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 2048


class Magnitudes:
    """Absolute values of a tensor, counted in equal bins from 0 to `upper`.

    When a larger value comes, pairs of bins are merged and `upper` doubles, so that values need be seen only
    once and are never kept.

    Attributes
    ----------
    counts : int64 (2048,)
    upper : float
        Upper edge of the last bin.
    greatest : float
        Greatest magnitude seen.
    channels : float32 (channels,)
        The same for every index of the last axis.
    shape : tuple of int
        Of the values of the last run.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.upper = 0.0
        self.greatest = 0.0
        self.channels: NDArray[np.float32] = np.zeros(0, np.float32)
        self.shape: tuple[int, ...] = ()

    def add(self, values: NDArray[Any]) -> None:
        """Count the values of one run, float (..., channels)."""
        sizes = np.abs(values, dtype=np.float32)
        if not sizes.size:
            return
        per_channel = sizes.reshape(-1, sizes.shape[-1]).max(axis=0) if sizes.ndim else sizes.reshape(1)
        same = self.channels.shape == per_channel.shape
        self.channels = np.maximum(self.channels, per_channel) if same else per_channel
        self.shape = values.shape
        self.greatest = max(self.greatest, float(per_channel.max()))
        if not self.upper:
            self.upper = self.greatest
        while self.upper < self.greatest:
            self.counts = np.concatenate(
                [self.counts.reshape(-1, 2).sum(axis=1), np.zeros(BINS // 2, np.int64)]
            )
            self.upper *= 2
        if self.upper:
            bins = np.minimum(sizes.ravel() * np.float32(BINS / self.upper), BINS - 1).astype(np.int64)
            self.counts += np.bincount(bins, minlength=BINS)

    @property
    def edges(self) -> NDArray[np.float64]:
        """Upper edge of every bin."""
        return np.arange(1, BINS + 1, dtype=np.float64) * (self.upper / BINS)

    @property
    def centres(self) -> NDArray[np.float64]:
        """Middle of every bin."""
        return (np.arange(BINS, dtype=np.float64) + 0.5) * (self.upper / BINS)
