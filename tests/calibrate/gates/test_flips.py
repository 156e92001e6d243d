"""Flips: where the threshold lies, and what images of one patient are worth."""

from __future__ import annotations

import numpy as np

from promptray.calibrate.gates.flips import FlipCounts
from promptray.calibrate.reference_threshold import reference_threshold
from tests.calibrate.gates.made import make, with_logits


def test_the_reference_threshold_flags_its_share_and_lies_on_no_image() -> None:
    logits = np.random.default_rng(0).normal(size=200)
    threshold = reference_threshold(logits, 0.1)
    assert (logits >= threshold).sum() in (19, 20, 21)
    gap = np.abs(logits - threshold).min()
    assert gap > 0
    noisy = logits + np.random.default_rng(1).uniform(-gap, gap, 200) * 0.99
    assert ((noisy >= threshold) == (logits >= threshold)).all()


def test_a_tie_at_the_reference_threshold_stays_together() -> None:
    assert reference_threshold(np.array([0.0, 1, 1, 1, 1]), 0.1) == 0.5
    assert reference_threshold(np.ones(5), 0.1) == 1.0  # all are flagged; none lies below


def test_flips_are_counted_for_one_finding_and_for_all() -> None:
    data = make(images=400, thresholds={"edema": 1.0})
    logits = np.array(data.original.logits)
    below = np.flatnonzero(logits[:, 0] < 1.0)[:4]
    logits[below, 0] = 1.0  # flagged at the threshold itself
    flips = FlipCounts(data, 0.1, 0.9)
    changed = flips.changed(with_logits(data, logits).candidate.logits)
    one, none, every = (flips.count(changed, finding) for finding in (0, 1, None))
    assert (one.flips, one.decisions, one.threshold, one.chosen) == (4, 400, 1.0, "stored")
    assert (none.flips, none.chosen) == (0, "reference operating point")
    assert (every.flips, every.decisions, every.patients, every.rate) == (4, 800, 400, 0.005)
    assert every.low < every.rate < every.high


def test_a_patient_with_most_of_the_images_widens_the_interval() -> None:
    even, uneven = (
        FlipCounts(make(images=400, patients=patients), 0.1, 0.9)
        for patients in (np.arange(400) // 2, np.maximum(np.arange(400) - 200, 0))
    )
    changed = np.zeros((400, 2), bool)
    assert even.count(changed).high < uneven.count(changed).high
