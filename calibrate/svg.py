"""Small plots as SVG: two axes, points, lines. Text stays text, and no plotting library is needed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import ArrayLike, NDArray

_WIDTH, _HEIGHT = 300, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 10, 24, 40
_NAMESPACE = ' xmlns="http://www.w3.org/2000/svg"'

Span = tuple[float, float]


def span(*values: ArrayLike) -> Span:
    """Return the range of all values with a little air; a range of no width gets one."""
    every = np.concatenate([np.ravel(np.asarray(each, np.float64)) for each in values])
    low, high = float(every.min()), float(every.max())
    air = (high - low) * 0.04 or max(abs(low), 1.0) * 0.04
    return low - air, high + air


class Plot:
    """A plot with a title, two named axes and round ticks.

    Parameters
    ----------
    title, x, y : str
        Escaped when written.
    x_span, y_span : tuple of float
        Finite, the first less than the second.
    """

    def __init__(self, title: str, x: str, y: str, x_span: Span, y_span: Span) -> None:
        self._x, self._y = x_span, y_span
        self._title = title
        self._parts: list[str] = [self._frame(x, y)]

    def points(self, x: ArrayLike, y: ArrayLike, colour: str) -> None:
        """Mark points; one path of strokes of no length, which is the shortest way to write many dots."""
        places = "".join(f"M{left:.1f} {top:.1f}h0" for left, top in self._places(x, y))
        self._parts.append(
            f'<path d="{places}" stroke="{colour}" stroke-width="3.5" stroke-linecap="round" '
            'stroke-opacity="0.55" fill="none"/>'
        )

    def line(self, x: ArrayLike, y: ArrayLike, colour: str, *, dashed: bool = False) -> None:
        """Draw straight lines from point to point."""
        places = " ".join(f"{left:.1f},{top:.1f}" for left, top in self._places(x, y))
        dashes = ' stroke-dasharray="4 3"' if dashed else ""
        self._parts.append(
            f'<polyline points="{places}" stroke="{colour}" stroke-width="1.4"{dashes} fill="none"/>'
        )

    def svg(self, *, standalone: bool = False) -> str:
        """Return the plot for a page, or as a file of its own."""
        return _svg(self._title, _WIDTH, _HEIGHT, "".join(self._parts), standalone=standalone)

    def _places(self, x: ArrayLike, y: ArrayLike) -> list[tuple[float, float]]:
        across, up = (np.ravel(np.asarray(each, np.float64)) for each in (x, y))
        return list(zip(self._across(across), self._down(up), strict=True))

    def _across(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        low, high = self._x
        return _LEFT + (x - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def _down(self, y: NDArray[np.float64]) -> NDArray[np.float64]:
        low, high = self._y
        return _HEIGHT - _BOTTOM - (y - low) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def _frame(self, x: str, y: str) -> str:
        right, bottom, middle = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM, (_TOP + _HEIGHT - _BOTTOM) / 2
        parts = [
            f'<text x="{_WIDTH / 2}" y="14" text-anchor="middle" font-size="11">{escape(self._title)}</text>',
            f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" stroke="#444" fill="none"/>',
            f'<text x="{(_LEFT + right) / 2}" y="{_HEIGHT - 8}" text-anchor="middle">{escape(x)}</text>',
            f'<text x="12" y="{middle}" text-anchor="middle" '
            f'transform="rotate(-90 12 {middle})">{escape(y)}</text>',
        ]
        for tick in _ticks(*self._x):
            left = float(self._across(np.array([tick]))[0])
            parts.append(f'<path d="M{left:.1f} {bottom}v4" stroke="#444"/>')
            parts.append(f'<text x="{left:.1f}" y="{bottom + 14}" text-anchor="middle">{tick:g}</text>')
        for tick in _ticks(*self._y):
            top = float(self._down(np.array([tick]))[0])
            parts.append(f'<path d="M{_LEFT} {top:.1f}h-4" stroke="#444"/>')
            parts.append(f'<text x="{_LEFT - 6}" y="{top + 3:.1f}" text-anchor="end">{tick:g}</text>')
        return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    """Return two to six round numbers inside a range: steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(size * power for size in (1, 2, 5, 10) if size * power >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    return [float(f"{number * step:.6g}") for number in range(first, last + 1)]


def bar_chart(
    title: str, x: str, names: Sequence[str], values: Sequence[float], *, standalone: bool = False
) -> str:
    """Return horizontal bars, one below the other, each with its name and its number as a share.

    Parameters
    ----------
    title, x : str
        Escaped when written, as the names are.
    names : sequence of str
    values : sequence of float
        Finite, none below 0.
    standalone : bool, optional
        As a file of its own.
    """
    row, left, wide = 16, 260, 320
    height = _TOP + row * len(names) + 24
    longest = max(values, default=0.0) or 1.0
    parts = [f'<text x="{left}" y="14" font-size="11">{escape(title)}</text>']
    for number, (name, value) in enumerate(zip(names, values, strict=True)):
        top, length = _TOP + row * number, value / longest * wide
        parts.append(
            f'<text x="{left - 6}" y="{top + 11}" text-anchor="end">{escape(name)}</text>'
            f'<rect x="{left}" y="{top + 2}" width="{length:.1f}" height="{row - 5}" fill="#4878a8"/>'
            f'<text x="{left + length + 4:.1f}" y="{top + 11}">{value:.2%}</text>'
        )
    parts.append(f'<text x="{left}" y="{height - 6}">{escape(x)}</text>')
    return _svg(title, left + wide + 60, height, "".join(parts), standalone=standalone)


def _svg(title: str, width: int, height: int, body: str, *, standalone: bool) -> str:
    return (
        f'<svg{_NAMESPACE if standalone else ""} viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="10" role="img">'
        f'<title>{escape(title)}</title><rect width="{width}" height="{height}" fill="white"/>'
        f"{body}</svg>"
    )
