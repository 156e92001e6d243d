"""Two sets of scores of the same images: ranks, differences, flips, AUROC, and what one side lacks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from promptray.calibrate.compare import SETTINGS, compare
from promptray.calibrate.tables.csv_file import TableError
from promptray.calibrate.tables.scores import ScoreTable
from tests.calibrate.labelled import make, table

QUICK = replace(SETTINGS, draws=200, min_patients=5)


def noisy(scores: np.ndarray, scale: float = 0.3, seed: int = 9) -> np.ndarray:
    return scores + np.random.default_rng(seed).normal(scale=scale, size=scores.shape)


def test_it_equals_the_libraries() -> None:
    labels, scores = make()
    other = noisy(scores)
    report = compare(table(labels, scores), table(labels, other), labels=labels, settings=QUICK)
    assert (report.images, report.patients, report.clustered_by) == (120, 60, "patient_id")
    for n, found in enumerate(report.findings):
        one, two = scores[:, n], other[:, n]
        assert found.spearman.value == pytest.approx(spearmanr(one, two)[0])
        assert found.spearman.low < found.spearman.value < found.spearman.high
        assert found.max_delta == pytest.approx(np.abs(one - two).max())
        assert found.mean_delta == pytest.approx(np.abs(one - two).mean())
        assert found.auroc.first == pytest.approx(roc_auc_score(labels.values[:, n], one))
        assert found.auroc.second == pytest.approx(roc_auc_score(labels.values[:, n], two))
        assert found.auroc.loss.value == pytest.approx(found.auroc.first - found.auroc.second)
    losses = [found.auroc.loss.value for found in report.findings]
    assert report.mean_auroc_loss.value == pytest.approx(np.mean(losses))


def test_a_side_compared_with_itself_differs_in_nothing() -> None:
    labels, scores = make()
    report = compare(table(labels, scores), table(labels, scores), labels=labels, settings=QUICK)
    for found in report.findings:
        assert (found.max_delta, found.mean_delta, found.flips.flips) == (0, 0, 0)
        assert found.spearman.value == pytest.approx(1)
        assert (found.auroc.loss.value, found.auroc.loss.low, found.auroc.loss.high) == (0, 0, 0)
        assert found.flips.high > 0  # no flip among so few images proves little


def test_swapping_the_sides_turns_the_loss_round() -> None:
    labels, scores = make()
    one, two = table(labels, scores), table(labels, noisy(scores))
    there, back = (compare(*pair, labels=labels, settings=QUICK) for pair in ((one, two), (two, one)))
    for first, second in zip(there.findings, back.findings, strict=True):
        assert first.auroc.loss.value == -second.auroc.loss.value
        assert first.spearman.value == pytest.approx(second.spearman.value)
        assert first.max_delta == second.max_delta


def test_the_paired_interval_is_narrower_than_each_side_alone() -> None:
    labels, scores = make(images=300)
    report = compare(table(labels, scores), table(labels, noisy(scores, 0.05)), labels=labels, settings=QUICK)
    loss = report.findings[0].auroc.loss
    assert loss.high - loss.low < 0.03


def test_flips_are_counted_at_the_reference_operating_point() -> None:
    labels, _ = make(images=10, keys=("mass",), per_patient=1)
    first = np.arange(10.0)[:, None]
    second = first.copy()
    second[[9, 0], 0] = 0.0, 20.0
    flips = compare(table(labels, first), table(labels, second), reference_rate=0.2).findings[0].flips
    assert (flips.threshold, flips.flips, flips.decisions) == (7.5, 2, 10)
    assert flips.chosen == "reference operating point"


def test_flips_are_counted_at_stored_thresholds_where_both_sides_have_them() -> None:
    labels, scores = make()
    flags = (scores > 0.5).astype(float)
    changed = flags.copy()
    changed[:3, 0] = 1 - changed[:3, 0]
    one = replace(table(labels, scores), flags=flags)
    flips = [f.flips for f in compare(one, replace(one, flags=changed)).findings]
    assert [(each.flips, each.chosen, each.threshold) for each in flips] == [
        (3, "stored", None),
        (0, "stored", None),
    ]
    without = compare(one, table(labels, scores)).findings[0].flips
    assert without.chosen == "reference operating point"


def test_flips_are_counted_at_the_reference_s_stored_thresholds_where_it_alone_has_them() -> None:
    labels, scores = make(images=60)
    one = replace(table(labels, scores), thresholds={"mass": 0.25})
    other = scores.copy()
    other[0, 1] = 0.5 - other[0, 1]  # to the other side of 0.25
    edema, mass = (found.flips for found in compare(one, table(labels, other)).findings)
    assert (mass.threshold, mass.chosen, mass.flips) == (0.25, "stored", 1)
    assert edema.chosen == "reference operating point"
    turned = [found.flips for found in compare(table(labels, other), one).findings]
    assert {each.chosen for each in turned} == {"reference operating point"}


def test_images_of_one_patient_are_no_more_decisions() -> None:
    labels, scores = make(images=40, per_patient=1)
    labels.patients[:30] = labels.patients[0]  # 11 patients, one of whom has most images
    flips = compare(table(labels, scores), table(labels, scores), labels=labels).findings[0].flips
    assert (flips.decisions, flips.patients) == (40, 1)


def test_without_labels_there_is_no_auroc_and_every_image_is_a_patient() -> None:
    labels, scores = make()
    report = compare(table(labels, scores), table(labels, noisy(scores)), settings=QUICK)
    assert (report.patients, report.clustered_by) == (120, "image")
    assert {(found.auroc, found.reason, found.labelled) for found in report.findings} == {
        (None, "no labels", False)
    }
    assert report.mean_auroc_loss is None


def test_too_few_patients_have_no_auroc_and_a_reason() -> None:
    labels, scores = make()
    labels.values[:, 1] = 0
    report = compare(table(labels, scores), table(labels, noisy(scores)), labels=labels, settings=QUICK)
    assert report.findings[1].auroc is None
    assert report.findings[1].reason == "0 patients with or without the finding, fewer than 5"
    assert report.mean_auroc_loss.value == report.findings[0].auroc.loss.value


def test_by_default_as_many_patients_are_asked_for_as_by_the_gates() -> None:
    labels, scores = make(images=58, per_patient=1)
    report = compare(table(labels, scores), table(labels, scores), labels=labels)
    assert (
        report.findings[0].reason
        == f"{labels.values[:, 0].sum()} patients with or without the finding, fewer than 30"
    )
    assert report.confidence == 0.9


def test_what_one_side_lacks_is_listed() -> None:
    labels, scores = make(images=30)
    first = replace(table(labels, scores), keys=("edema", "gout"), refused={"line 33": "image.broken"})
    scores = scores.copy()
    scores[4] = np.nan
    second = table(labels.select(list(range(20))), scores[:20])
    report = compare(first, second, settings=QUICK)
    assert [found.key for found in report.findings] == ["edema"]
    assert (report.first.only_here, report.second.only_here) == (["gout"], ["mass"])
    assert (report.images, report.first.images, report.second.images) == (19, 30, 19)
    assert (report.first.images_only_here, report.second.images_only_here) == (11, 0)
    assert [(image.image, image.code) for image in report.first.refused] == [("line 33", "image.broken")]


def test_images_are_matched_by_name_not_by_place() -> None:
    labels, scores = make(images=30)
    first = table(labels, scores)
    turned = table(labels.select(list(range(29, -1, -1))), scores[::-1])
    assert max(found.max_delta for found in compare(first, turned, labels=labels).findings) == 0


def test_a_constant_side_has_no_rank_correlation() -> None:
    labels, scores = make(images=30)
    report = compare(table(labels, scores), table(labels, np.zeros_like(scores)), settings=QUICK)
    assert report.findings[0].spearman is None
    assert report.findings[0].max_delta > 0


@pytest.mark.parametrize("what", ["image", "finding"])
def test_nothing_in_common_is_refused(what: str) -> None:
    labels, scores = make(images=4)
    first = table(labels, scores)
    names = [f"other-{name}" for name in first.names] if what == "image" else first.names
    keys = ("gout", "lump") if what == "finding" else first.keys
    second = ScoreTable("other", names, keys, first.values)
    with pytest.raises(TableError, match=f"no scored {what} in common") as caught:
        compare(first, second)
    assert caught.value.code == "table.disjoint"
