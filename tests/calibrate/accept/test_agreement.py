"""Agreement by the gates of a build: passed, refused, inconclusive; what is not compared is not passed."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from promptray.calibrate.accept.agreement import Side, Statistics, hold_reference, without_reference
from promptray.calibrate.accept.images import OneAnswer, Scored
from promptray.calibrate.tables.labels import LabelledImage, Labels
from promptray.runtime.backends import HOST, BackendFacts
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.manifest import Finding
from tests.calibrate.accept.variants import write_variant

HEAD = "chest"
FEW = Statistics(draws=200)
FP32 = BackendFacts(HOST, "1", "CPU", "fp32", 1, "asked for", None)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_variant(tmp_path_factory.mktemp("agreement"), "small")


def side(
    bundle: Bundle, logits: NDArray[np.float64], keys: tuple[str, ...] = ("a", "b"), **changes: Any
) -> Side:
    """Made-up answers of a scorer; each picture is another."""
    scored = Scored({HEAD: keys}, set(), refused=changes.pop("refused", {}))
    for place, row in enumerate(logits):
        scored.pictures[place] = f"{place:064}"
        scored.answers[place] = {HEAD: OneAnswer(row, None)}
    findings = {HEAD: [Finding(key=key, display=key, prompts=[f"{key}."], head=HEAD) for key in keys]}
    return replace(Side(bundle, FP32, findings, {HEAD: {}}, scored), **changes)


def scores(images: int) -> NDArray[np.float64]:
    return np.random.default_rng(0).normal(size=(images, 2))


def test_enough_images_that_agree_pass(bundle: Bundle) -> None:
    logits = scores(320)
    report, part = hold_reference(side(bundle, logits + 1e-6), side(bundle, logits), None, FEW)
    assert (part.verdict, report.against) == ("passed", "reference")
    assert "gates on 320 images" in part.reason
    assert report.heads[0].gates.patients == 320


def test_too_few_say_how_many_would_settle_it(bundle: Bundle) -> None:
    logits = scores(100)
    _, part = hold_reference(side(bundle, logits), side(bundle, logits), None, FEW)
    assert part.verdict == "inconclusive"
    assert "299 independent decisions would settle it" in part.reason


def test_scores_that_differ_are_refused(bundle: Bundle) -> None:
    logits = scores(320)
    _, part = hold_reference(side(bundle, logits[::-1].copy()), side(bundle, logits), None, FEW)
    assert part.verdict == "refused"


def test_copies_of_one_picture_are_one_patient(bundle: Bundle) -> None:
    logits = scores(320)
    ours = side(bundle, logits)
    ours.scored.pictures.update(dict.fromkeys(range(300), "0" * 64))
    report, part = hold_reference(ours, side(bundle, logits), None, FEW)
    assert part.verdict == "inconclusive"
    assert report.heads[0].gates.patients == 21


def test_flips_are_counted_at_the_thresholds_of_the_site(bundle: Bundle) -> None:
    logits = scores(320)
    ours = side(bundle, logits, thresholds={HEAD: {"a": 0.5, "of another": 1.0}})
    report, _ = hold_reference(ours, side(bundle, logits), None, FEW)
    flips = {each.key: each.flips.chosen for each in report.heads[0].gates.findings}
    assert flips == {"a": "stored", "b": "reference operating point"}


def test_a_finding_with_other_wordings_is_not_compared_and_not_passed(bundle: Bundle) -> None:
    logits = scores(320)
    ours = side(bundle, logits)
    findings = {HEAD: [ours.findings[HEAD][0], Finding(key="b", display="b", prompts=["else."], head=HEAD)]}
    report, part = hold_reference(ours, side(bundle, logits, findings=findings), None, FEW)
    assert report.not_compared == ["chest: b"]
    assert [each.key for each in report.heads[0].gates.findings] == ["a"]
    assert part.verdict == "inconclusive"


def test_columns_are_matched_by_key_and_images_by_place(bundle: Bundle) -> None:
    logits = scores(320)
    reference, ours = side(bundle, logits[:, ::-1].copy(), ("b", "a")), side(bundle, logits)
    del ours.scored.answers[0]
    report, part = hold_reference(ours, reference, None, FEW)
    gates = report.heads[0].gates
    assert (part.verdict, gates.images) == ("passed", 319)
    assert max(each.max_delta for each in gates.findings) == 0


def test_nothing_scored_by_both_is_inconclusive(bundle: Bundle) -> None:
    report, part = hold_reference(side(bundle, scores(3)), side(bundle, scores(0)), None, FEW)
    assert (part.verdict, report.heads) == ("inconclusive", [])
    assert "no image was scored by both" in part.reason


def test_images_that_the_reference_alone_refuses_are_not_passed(bundle: Bundle) -> None:
    logits = scores(322)
    reference = side(bundle, logits)
    for place in (0, 1):
        del reference.scored.answers[place]
    report, part = hold_reference(side(bundle, logits), reference, None, FEW)
    assert (part.verdict, report.heads[0].gates.verdict) == ("inconclusive", "passed")
    assert "2 images that were scored are not compared" in part.reason


def test_labels_measure_what_is_lost(bundle: Bundle) -> None:
    logits = scores(320)
    labels = Labels(
        table="t", sha256="0" * 64, images=[LabelledImage(f"{n}", n + 2) for n in range(320)], keys=("b",),
        values=(logits[:, 1:] > 0).astype(np.int8), patients=np.arange(320) // 2, clustered=True,
        sources=None, unused=(),
    )  # fmt: skip
    ours = logits.copy()
    ours[:, 1] = -ours[:, 1]
    report, part = hold_reference(side(bundle, ours), side(bundle, logits), labels, FEW)
    gates = report.heads[0].gates
    assert (gates.labelled, gates.patients, gates.clustered_by) == (True, 160, "patient")
    aurocs = {each.key: each.auroc for each in gates.findings}
    assert aurocs["a"] is None
    assert aurocs["b"] is not None
    assert (aurocs["b"].first, aurocs["b"].second, part.verdict) == (1, 0, "refused")
    assert min(each.image for each in gates.disagreements) >= 2  # lines of the table


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        ({}, "passed"),
        ({"name": "tensorrt"}, "inconclusive"),
        ({"precision": "image int8-qdq, head fp32"}, "inconclusive"),
        ({"gated_as": HOST}, "inconclusive"),  # a student in fp32
    ],
)
def test_without_a_reference_only_the_unchanged_original_passes(
    changes: dict[str, Any], verdict: str
) -> None:
    facts = SimpleNamespace(**{"name": HOST, "precision": "fp32", "gated_as": None, **changes})
    report, part = without_reference(facts)  # type: ignore[arg-type]
    assert part.verdict == verdict
    assert report.against == "golden pictures only"
