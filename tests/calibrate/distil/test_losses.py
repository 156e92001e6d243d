from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from promptray.calibrate.distil.losses import (
    Scale,
    feature_loss,
    logit_loss,
    report_loss,
    similarity_loss,
    tag_loss,
)
from promptray.calibrate.distil.reports import supervision
from promptray.calibrate.distil.run import distil
from promptray.calibrate.distil.settings import Augmentation, LossWeights
from promptray.calibrate.distil.views import view
from promptray.runtime.errors import BuildError
from tests.calibrate.distil import pupils

REPORTS = [
    "There is pneumonia.",
    "No pneumonia. Cardiomegaly is present.",
    "Clear lungs.",
    "Pleural effusion.",
] * 3


def test_features_are_measured_in_variances_and_logits_in_spreads() -> None:
    torch.manual_seed(0)
    theirs = torch.randn(4000, 5, 3) * 7 + 2
    mean = theirs.mean(dim=0)
    scale = Scale([mean], [float((theirs - mean).square().mean())], {"h": torch.tensor([2.0, 4.0])})
    assert float(feature_loss([mean.expand_as(theirs)], [theirs], scale)) == pytest.approx(1, abs=1e-4)
    assert float(feature_loss([theirs], [theirs], scale)) == 0
    off = {"h": torch.tensor([[2.0, 4.0], [0.0, -4.0]])}
    assert float(logit_loss(off, {"h": torch.zeros(2, 2)}, scale)) == pytest.approx(0.75)


def test_similarity_sees_no_rotation_and_no_length_of_a_row() -> None:
    torch.manual_seed(0)
    theirs = torch.randn(6, 4, dtype=torch.float64)
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0]
    scale = Scale([torch.zeros(4, dtype=torch.float64)], [1.0], {})
    assert float(similarity_loss([3 * theirs @ turn], [theirs], scale)) == pytest.approx(0, abs=1e-12)
    assert float(similarity_loss([theirs.flip(0)], [theirs], scale)) > 0.1


def test_reports_soften_the_truth_as_asg_does() -> None:
    # Written out anew from the paper's formula, in NumPy.
    rng = np.random.default_rng(0)
    scores, tags = rng.normal(size=(3, 3)), np.array([[1, 0, 1], [1, 1, 0], [0, 0, 0]], float)
    unit = tags / np.maximum(np.linalg.norm(tags, axis=1, keepdims=True), 1e-12)
    truth = 0.8 * np.eye(3) + 0.2 * unit @ unit.T + 1e-6
    truth /= truth.sum(1, keepdims=True)

    def both(rows: Any) -> float:
        found = np.exp(rows) / np.exp(rows).sum(1, keepdims=True)
        first = (truth * np.log(truth / found)).sum(1).mean()
        return float((first + (found * np.log(found / truth)).sum(1).mean()) / 2)

    expected = (both(scores) + both(scores.T)) / 2
    assert float(report_loss(torch.from_numpy(scores), torch.from_numpy(tags))) == pytest.approx(expected)


def test_a_finding_of_which_nothing_is_known_teaches_nothing() -> None:
    logits = torch.tensor([[0.0, 50.0], [0.0, -50.0]], requires_grad=True)
    loss = tag_loss(logits, torch.tensor([[1.0, float("nan")], [0.0, float("nan")]]))
    loss.backward()
    assert loss.item() == pytest.approx(np.log(2))
    assert logits.grad is not None
    assert logits.grad[:, 1].tolist() == [0, 0]


def test_asg_learns_from_reports_and_tags(tmp_path: Path) -> None:
    model = pupils.asg("prompts", "tags")
    images = pupils.images(12, model, reports=REPORTS)
    chosen = pupils.findings(model)
    extra = supervision(model, chosen, images, LossWeights(report=1, tag=1))
    assert extra.head == "prompts"
    known = dict(zip(chosen["tags"], extra.known["tags"].T.tolist(), strict=True))
    assert known["pneumonia"] == [1, 0, 0, 0] * 3
    assert known["pleural effusion"] == [0, 0, 0, 1] * 3
    settings = pupils.settings(epochs=1, augment={"views": 1}, losses={"report": 1, "tag": 1})
    facts = distil(model, chosen, settings, images, tmp_path, pupils.quiet)
    assert set(facts.history[0].val_terms) == {"feature", "similarity", "logit", "report", "tag"}
    for path in tmp_path.glob("*.json"):
        assert "pneumonia" not in path.read_text()  # what was said of an image is not stored


@pytest.mark.parametrize(
    ("weights", "facts", "code"),
    [
        ({"report": 1}, {}, "distil.images"),
        ({"tag": 1}, {}, "distil.images"),
        ({"tag": 1}, {"labels": {"other": np.zeros(12)}}, "distil.settings"),
    ],
)
def test_a_loss_without_what_it_needs_is_refused(weights: Any, facts: Any, code: str) -> None:
    model = pupils.asg("prompts", "tags")
    with pytest.raises(BuildError) as refused:
        supervision(model, pupils.findings(model), pupils.images(12, model, **facts), LossWeights(**weights))
    assert refused.value.code == code


def test_a_head_of_rows_scores_no_reports() -> None:
    model = pupils.carzero()
    images = pupils.images(12, model, reports=REPORTS)
    with pytest.raises(BuildError) as refused:
        supervision(model, pupils.findings(model), images, LossWeights(report=1))
    assert refused.value.code == "distil.settings"


def test_patients_and_copies_stay_on_one_side_and_few_images_are_warned_of() -> None:
    model = pupils.small()
    images = pupils.images(30, model, patients=np.arange(30) // 3)
    copied = dataclasses.replace(images, hashes=["same", *images.hashes[1:-1], "same"])
    train, val = copied.divide(0.3, 0)
    assert set(train) | set(val) == set(range(30))
    assert not set(train // 3) & set(val // 3)
    assert (0 in train) == (29 in train)
    assert "few" in images.warnings[0]
    with pytest.raises(BuildError) as refused:
        pupils.images(7, model)
    assert refused.value.code == "distil.images"
    with pytest.raises(BuildError) as refused:
        pupils.images(8, model, patients=np.zeros(8)).divide(0.3, 0)
    assert refused.value.code == "distil.images"


def test_views_are_seeded_and_the_first_is_the_picture() -> None:
    picture = pupils.pictures(1, pupils.small())[0]
    rule = Augmentation()
    assert view(picture, rule, 0, (0, 1)) is picture
    first, same, other = (view(picture, rule, number, (0, 1)) for number in (1, 1, 2))
    assert np.array_equal(first, same)
    assert not np.array_equal(first, other)
    assert first.dtype == np.float32
    assert 0 <= first.min() <= first.max() <= 255
    still = Augmentation(rotate=0, shift=0, scale=0, contrast=0, brightness=0)
    assert np.abs(view(picture, still, 1, (0, 1)) - picture).max() < 1e-3
