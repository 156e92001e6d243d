"""What is measured of labels and scores, against scikit-learn; nothing is dropped silently."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_auc_score

from promptray.calibrate.evaluate import Settings, evaluate
from promptray.calibrate.published import Published
from promptray.calibrate.tables.labels import UNCERTAIN, UNKNOWN
from tests.calibrate.labelled import make

KEYS = ("edema", "mass")
QUICK = Settings(draws=200)


def test_every_finding_and_the_means_equal_the_library() -> None:
    labels, scores = make()
    (group,) = evaluate(labels, KEYS, scores, settings=QUICK)
    truth = labels.values.astype(bool)
    areas = [roc_auc_score(truth[:, n], scores[:, n]) for n in range(2)]
    precisions = [average_precision_score(truth[:, n], scores[:, n]) for n in range(2)]
    for n, finding in enumerate(group.findings):
        assert (finding.key, finding.status, finding.images) == (KEYS[n], "evaluated", 120)
        assert finding.positives == truth[:, n].sum()
        assert finding.auroc.value == pytest.approx(areas[n])
        assert finding.auprc.value == pytest.approx(precisions[n])
        assert finding.auroc.low < finding.auroc.value < finding.auroc.high
        assert finding.f1.chosen == "best on these images (optimistic)"
    everything = group.means[0]
    assert (everything.part, everything.findings) == ("all", list(KEYS))
    assert everything.auroc.value == pytest.approx(np.mean(areas))
    assert everything.auprc.value == pytest.approx(np.mean(precisions))
    precision, recall, _ = precision_recall_curve(truth.T.ravel(), scores.T.ravel())
    assert group.auprc_trapezoid_micro == pytest.approx(auc(recall, precision))
    assert (group.images, group.patients, group.classes) == (120, 60, None)


def test_columns_are_matched_by_key_and_those_without_labels_are_left() -> None:
    labels, scores = make()
    wider = np.column_stack([np.zeros(120), scores[:, 1], scores[:, 0]])
    (group,) = evaluate(labels, ("gout", "mass", "edema"), wider, settings=QUICK)
    (plain,) = evaluate(labels, KEYS, scores, settings=QUICK)
    assert group.findings == plain.findings[::-1]


def test_the_same_seed_gives_the_same_report() -> None:
    labels, scores = make()
    first = evaluate(labels, KEYS, scores, settings=QUICK)
    assert evaluate(labels, KEYS, scores, settings=QUICK) == first
    other = evaluate(labels, KEYS, scores, settings=replace(QUICK, seed=1))
    assert other[0].findings[0].auroc.low != first[0].findings[0].auroc.low


def test_unknown_uncertain_and_unscored_images_are_counted() -> None:
    labels, scores = make()
    labels.values[:10, 0] = UNKNOWN
    labels.values[10:15, 0] = UNCERTAIN
    scores[119] = np.nan
    found = {
        name: evaluate(labels, KEYS, scores, settings=replace(QUICK, uncertain=name))[0].findings[0]
        for name in ("ignore", "present", "absent")
    }
    assert {name: (finding.images, finding.unknown) for name, finding in found.items()} == {
        "ignore": (104, 15),
        "present": (109, 10),
        "absent": (109, 10),
    }
    assert found["present"].positives == found["absent"].positives + 5
    kept = np.arange(15, 119)
    area = roc_auc_score(labels.values[kept, 0], scores[kept, 0])
    assert found["ignore"].auroc.value == pytest.approx(area)


def test_too_few_patients_are_inconclusive_and_in_no_mean() -> None:
    labels, scores = make(per_patient=10)  # 12 patients
    labels.values[:, 1] = 0
    labels.values[:40, 1] = 1  # 40 images, but 4 patients
    (group,) = evaluate(labels, KEYS, scores, settings=QUICK)
    edema, mass = group.findings
    assert (edema.status, mass.status) == ("evaluated", "inconclusive")
    assert mass.reason == "4 patients with the finding, fewer than 5"
    assert (mass.auroc, mass.auprc, mass.f1, mass.positives) == (None, None, None, 40)
    assert group.means[0].findings == ["edema"]
    (again,) = evaluate(labels, KEYS, scores, settings=replace(QUICK, min_patients=4))
    assert again.findings[1].status == "evaluated"


def test_nothing_scored_is_inconclusive_everywhere() -> None:
    labels, scores = make(images=20)
    (group,) = evaluate(labels, KEYS, np.full_like(scores, np.nan), settings=QUICK)
    assert [finding.status for finding in group.findings] == ["inconclusive"] * 2
    assert (group.images, group.patients, group.means[0].auroc) == (0, 0, None)


def test_each_source_is_measured_and_keeps_the_parts_of_the_whole() -> None:
    labels, scores = make(sources=["here"] * 60 + ["there"] * 60)
    everything, here, there = evaluate(labels, KEYS, scores, settings=QUICK)
    assert [group.source for group in (everything, here, there)] == [None, "here", "there"]
    area = roc_auc_score(labels.values[:60, 0], scores[:60, 0])
    assert here.findings[0].auroc.value == pytest.approx(area)
    assert [f.part for f in there.findings] == [f.part for f in everything.findings]
    assert here.images + there.images == everything.images


def test_one_source_is_no_group_of_its_own() -> None:
    labels, scores = make(sources=["here"] * 120)
    assert len(evaluate(labels, KEYS, scores, settings=QUICK)) == 1


def test_clusters_widen_the_interval() -> None:
    labels, scores = make(images=60, per_patient=1)
    copies = np.repeat(np.arange(60), 8)
    clustered = labels.select(copies.tolist())
    independent = replace(clustered, patients=np.arange(480))
    widths = [
        evaluate(each, KEYS, scores[copies], settings=QUICK)[0].findings[0].auroc
        for each in (clustered, independent)
    ]
    assert widths[1].high - widths[1].low < 0.5 * (widths[0].high - widths[0].low)


def test_stored_thresholds_are_used_where_they_are() -> None:
    labels, scores = make()
    flags = np.column_stack([scores[:, 0] > 0.5, np.full(120, np.nan)]).astype(float)
    (group,) = evaluate(labels, KEYS, scores, flags, QUICK)
    assert [finding.f1.chosen for finding in group.findings] == [
        "stored",
        "best on these images (optimistic)",
    ]
    assert group.findings[0].f1.threshold is None


def test_published_values_stand_beside() -> None:
    labels, scores = make()
    table = Published(
        name="t", model="m", set="s", pack="p", images=1, source="x", findings=2, macro_auroc=0.7,
        auroc={"edema": 0.6, "mass": 0.8},
    )  # fmt: skip
    (group,) = evaluate(labels, KEYS, scores, settings=QUICK, published=table)
    assert [finding.published_auroc for finding in group.findings] == [0.6, 0.8]
    assert group.means[0].published_auroc == 0.7


def test_the_parts_have_means_of_their_own() -> None:
    labels, scores = make(images=400, keys=tuple("abcdef"), prevalence=0.1)
    for column, count in enumerate((5, 8, 40, 60, 120, 200)):
        labels.values[:, column] = 0
        labels.values[np.random.default_rng(column).permutation(400)[:count], column] = 1
    (group,) = evaluate(labels, tuple("abcdef"), scores, settings=replace(QUICK, min_patients=1))
    assert [(mean.part, mean.findings) for mean in group.means] == [
        ("all", list("abcdef")),
        ("head", ["e", "f"]),
        ("medium", ["c", "d"]),
        ("tail", ["a", "b"]),
    ]
