"""A plot is well-formed, puts points where they belong, and survives values that do not differ."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from promptray.calibrate.svg import Plot, bar_chart, span


def test_a_file_is_well_formed_and_its_texts_are_escaped() -> None:
    plot = Plot("<a> & b", "x<", "y>", (0, 1), (0, 1))
    plot.points([0, 1], [0, 1], "red")
    root = ElementTree.fromstring(plot.svg(standalone=True))
    texts = [element.text for element in root.iter() if element.text]
    assert {"<a> & b", "x<", "y>", "0.4"} <= set(texts)
    assert "xmlns" not in plot.svg()


def test_points_lie_by_their_values() -> None:
    plot = Plot("t", "x", "y", (0, 10), (0, 1))
    plot.points([0, 5, 10], [0, 0.5, 1], "red")
    places = np.array(re.findall(r"M([\d.]+) ([\d.]+)h0", plot.svg()), float)
    assert places[1] == pytest.approx(places[[0, 2]].mean(0), abs=0.1)
    assert places[0, 0] < places[2, 0]
    assert places[0, 1] > places[2, 1]  # up is less in SVG


def test_values_that_do_not_differ_have_a_span_around_them() -> None:
    for values in ([3.0, 3.0], [0.0], [-5.0]):
        low, high = span(values)
        assert low < values[0] < high


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.7, 12.2), (1e-9, 3e-9), (99.9, 100.1), (-4e6, 1e5)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    svg = Plot("t", "x", "y", (low, high), (0, 1)).svg()
    ticks = [float(text) for text in re.findall(r'text-anchor="middle">(-?[\d.e+-]+)</text>', svg)]
    assert 3 <= len(ticks) <= 6
    assert all(low <= tick <= high for tick in ticks)
    assert np.diff(ticks) == pytest.approx(np.full(len(ticks) - 1, ticks[1] - ticks[0]))


def test_bars_are_as_long_as_their_values_and_names_are_escaped() -> None:
    plot = bar_chart("<t>", "share", ["a<", "b", "c"], [0.5, 0.25, 0.0], standalone=True)
    root = ElementTree.fromstring(plot)
    texts = [element.text for element in root.iter() if element.text]
    assert {"<t>", "a<", "b", "50.00%", "25.00%", "0.00%"} <= set(texts)
    lengths = [float(length) for length in re.findall(r'width="([\d.]+)" height="11"', plot)]
    assert lengths == [320.0, 160.0, 0.0]
    ElementTree.fromstring(bar_chart("nothing moves", "share", ["a"], [0.0], standalone=True))
