"""Thresholds on magnitudes whose best threshold is known."""

from __future__ import annotations

import numpy as np
import pytest

from promptray.calibrate.quantise.histogram import BINS, Magnitudes
from promptray.calibrate.quantise.thresholds import threshold_of


def seen(*runs: np.ndarray) -> Magnitudes:
    magnitudes = Magnitudes()
    for values in runs:
        magnitudes.add(values.astype(np.float32))
    return magnitudes


def test_a_growing_histogram_counts_what_one_of_its_final_width_would() -> None:
    random = np.random.default_rng(0)
    runs = [random.normal(size=(50, 8)) * scale for scale in (1, 0.1, 30)]
    magnitudes = seen(*runs)
    everything = np.abs(np.concatenate(runs).astype(np.float32))
    assert magnitudes.greatest == everything.max()
    assert magnitudes.counts.sum() == everything.size
    np.testing.assert_array_equal(magnitudes.channels, everything.max(axis=0))
    whole, _ = np.histogram(everything, bins=BINS, range=(0, magnitudes.upper))
    assert np.abs(np.cumsum(magnitudes.counts) - np.cumsum(whole)).max() <= 2  # values on an edge


@pytest.mark.parametrize("rule", ["max", "percentile", "mse", "entropy"])
def test_no_rule_goes_beyond_what_was_seen_and_zeros_give_zero(rule: str) -> None:
    flat = seen(np.linspace(-1, 1, 5000)[:, None])
    assert 0 < threshold_of(flat, rule) <= flat.greatest  # type: ignore[arg-type]
    assert threshold_of(seen(np.zeros((3, 4))), rule) == 0  # type: ignore[arg-type]


def test_a_single_outlier_is_clipped_by_all_rules_but_the_greatest() -> None:
    values = np.random.default_rng(1).normal(size=(100_000, 1))
    values[7] = 100.0
    magnitudes = seen(values)
    found = {rule: threshold_of(magnitudes, rule) for rule in ("max", "percentile", "mse", "entropy")}  # type: ignore[arg-type]
    assert found["max"] == 100.0
    assert found["percentile"] == pytest.approx(3.9, abs=0.3)
    assert found["entropy"] < 10
    # One value at a distance of 90 is worth 8100, so the squares keep more of it than the others do.
    assert found["percentile"] < found["mse"] < 80


def test_mse_is_the_least_of_the_errors_it_says_it_is() -> None:
    values = np.random.default_rng(2).laplace(size=200_000)
    magnitudes = seen(values[:, None])

    def loss(threshold: float) -> float:
        step = threshold / 127
        return float(((np.clip(np.round(values / step), -127, 127) * step - values) ** 2).mean())

    chosen = loss(threshold_of(magnitudes, "mse"))
    assert chosen <= 1.02 * min(loss(magnitudes.greatest * part / 50) for part in range(5, 51))
    assert chosen < 0.75 * loss(magnitudes.greatest)


def test_percentile_leaves_its_share_out() -> None:
    values = np.random.default_rng(3).exponential(size=400_000)
    threshold = threshold_of(seen(values[:, None]), "percentile")
    assert np.mean(values > threshold) == pytest.approx(1e-4, rel=0.3)
