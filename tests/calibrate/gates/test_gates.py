"""Every verdict is reached by data whose truth is known, and every gate can fail."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import jsonschema
import numpy as np
import pytest
from scipy.stats import norm

from promptray.calibrate.evaluation_report import to_json
from promptray.calibrate.gates import LIMITS, GateData, Limits, run_gates
from promptray.calibrate.gates.report import Gate, GateReport
from promptray.calibrate.gates.table import gate_text
from promptray.runtime.errors import BuildError
from tests.calibrate.gates.made import make, noise, with_logits, with_maps

SCHEMA = Path(__file__).parents[3] / "docs" / "gates.schema.json"
NAMES = [field.name for field in fields(Limits)]


def run(data: GateData, limits: Limits = LIMITS["int8"], draws: int = 200) -> GateReport:
    return run_gates(data, limits, draws=draws)


def gate(report: GateReport, name: str) -> Gate:
    (found,) = [each for each in report.gates if each.name == name]
    return found


@pytest.mark.parametrize("kind", ["fp16", "int8", "student"])
def test_identical_scores_pass_every_gate_with_no_noise(kind: str) -> None:
    report = run(make(), LIMITS[kind])
    assert [each.name for each in report.gates] == NAMES
    assert {each.verdict for each in report.gates} == {report.verdict} == {"passed"}
    for each in report.gates:
        perfect = 1.0 if each.sense == "at least" else 0.0
        assert each.value == pytest.approx(perfect, abs=1e-12)
        assert each.noise_floor == pytest.approx(perfect, abs=1e-12)
    assert report.not_run == []
    assert report.disagreements == []


def test_small_noise_passes() -> None:
    data = make(images=3000)
    report = run(with_logits(data, noise(data, 0.005)))
    assert report.verdict == "passed"
    assert all(
        each.value > 0 for each in report.gates if each.name.endswith("delta") and "batch" not in each.name
    )


def test_a_model_that_says_something_else_is_refused_by_every_gate_on_scores() -> None:
    data = make()
    report = run(with_logits(data, np.random.default_rng(7).permutation(data.original.logits)))
    assert report.verdict == "refused"
    refused = {each.name for each in report.gates if each.verdict == "refused"}
    assert refused == {*NAMES[:7]}


def _swapped(data: GateData) -> GateData:
    """Present and absent change their scores in part: ranks and AUROC go, and much else."""
    logits = np.array(data.candidate.logits)
    logits[:200] = logits[:200][::-1] + 0.0
    return with_logits(data, logits)


def _flipped(data: GateData) -> GateData:
    """A twentieth of one finding's images cross the threshold by a hair."""
    threshold = 1.0
    logits = np.array(data.original.logits)
    logits[:40, 0] = threshold + 1e-6
    original = replace(data.original, logits=logits)
    moved = logits.copy()
    moved[:40, 0] = threshold - 1e-6
    return with_logits(replace(data, original=original, again=None, thresholds={"edema": threshold}), moved)


def _outlier(data: GateData) -> GateData:
    logits = np.array(data.candidate.logits)
    row = int(logits[:, 1].argmax())
    logits[row, 1] += 50.0
    return with_logits(data, logits)


DAMAGES = {
    "auroc_loss": _swapped,
    "class_auroc_loss": _swapped,
    "flips": _flipped,
    "finding_flips": _flipped,
    "spearman": _swapped,
    "mean_delta": lambda data: with_logits(data, np.asarray(data.candidate.logits) + 1.0),
    "max_delta": _outlier,
    "batch_delta": lambda data: replace(data, other_shapes={"batch 8": noise(data, 0.1)}),
    "map_correlation": lambda data: with_maps(data, -np.asarray(data.candidate.maps)),
    "map_overlap": lambda data: with_maps(data, 1 - np.asarray(data.candidate.maps)),
}


@pytest.mark.parametrize("name", NAMES)
def test_each_gate_can_refuse_alone(name: str) -> None:
    bound = getattr(LIMITS["int8"], name)
    report = run(DAMAGES[name](make()), Limits(**{name: bound}))
    assert [(each.name, each.verdict) for each in report.gates] == [(name, "refused")]
    assert report.verdict == "refused"


def test_the_worst_finding_is_named() -> None:
    report = run(_flipped(make()), Limits(finding_flips=0.01, flips=0.04))
    assert gate(report, "finding_flips").finding == "edema"
    assert gate(report, "finding_flips").value == 40 / 800
    assert gate(report, "flips").finding is None
    assert gate(report, "flips").value == 40 / 1600
    assert gate(report, "flips").decisions == 1600


def test_few_images_are_inconclusive_and_say_how_many_would_do() -> None:
    report = run(make(images=40))
    assert report.verdict == "inconclusive"
    flips = gate(report, "flips")
    assert (flips.verdict, flips.value, flips.patients_needed) == ("inconclusive", 0.0, 299)
    loss = gate(report, "class_auroc_loss")
    assert (loss.verdict, loss.patients_needed) == ("inconclusive", 60)
    assert loss.reason == "20 patients with or without the finding; 30 of each are the least"
    assert gate(report, "auroc_loss").verdict == "inconclusive"
    assert gate(report, "spearman").verdict == "passed"  # 40 patients are enough for what they show


def test_so_many_as_it_asked_for_do() -> None:
    small = run(make(images=40), Limits(flips=0.01))
    needed = small.gates[0].patients_needed
    assert run(make(images=needed), Limits(flips=0.01)).verdict == "passed"
    assert run(make(images=needed - 1), Limits(flips=0.01)).verdict == "inconclusive"


def test_golden_images_alone_never_pass() -> None:
    report = run(make(images=16))
    assert {each.verdict for each in report.gates} == {"inconclusive"}
    assert all(each.reason for each in report.gates)


def test_an_interval_that_holds_the_bound_is_inconclusive_on_either_side() -> None:
    data = make(images=400)
    changed = with_logits(data, noise(data, 0.3))
    found = gate(run(changed, Limits(auroc_loss=0.0)), "auroc_loss")
    for bound in ((found.low + found.value) / 2, (found.high + found.value) / 2):
        again = gate(run(changed, Limits(auroc_loss=bound)), "auroc_loss")
        assert again.verdict == "inconclusive"
        assert again.patients_needed > 400
        assert f"{again.patients_needed} patients" in again.reason


def test_images_of_one_patient_widen_every_interval() -> None:
    """Ten copies of each image teach nothing new."""
    data = make(images=100)
    data = with_logits(data, noise(data, 0.3))

    def tenfold(model):
        return replace(model, logits=np.repeat(model.logits, 10, 0), maps=np.repeat(model.maps, 10, 0))

    copies = replace(
        data,
        original=tenfold(data.original),
        candidate=tenfold(data.candidate),
        again=None,
        other_shapes={},
        labels=np.repeat(data.labels, 10, 0),
        patients=np.repeat(np.arange(100), 10),
    )
    limits = Limits(auroc_loss=0.01, flips=0.5, spearman=0.9, mean_delta=1.0)
    honest, naive = (run(each, limits) for each in (copies, replace(copies, patients=None)))
    assert (honest.patients, naive.patients) == (100, 1000)
    for own, other in zip(honest.gates, naive.gates, strict=True):
        assert own.value == other.value
        assert own.high - own.low > 2 * (other.high - other.low)


def test_a_loss_on_the_bound_seldom_passes_and_no_loss_does() -> None:
    """Binormal scores whose AUROC is known: 2 spreads apart, the candidate with noise of s more."""
    s, runs, passed, innocent = 0.5, 60, 0, 0
    true_loss = norm.cdf(2 / np.sqrt(2)) - norm.cdf(2 / np.sqrt(2 + s**2))
    for seed in range(runs):
        data = make(images=200, keys=("edema",), seed=seed, again=None)
        rng = np.random.default_rng(1000 + seed)
        worse = np.asarray(data.original.logits) + rng.normal(scale=s, size=(200, 1))
        passed += run(with_logits(data, worse), Limits(auroc_loss=true_loss), 100).verdict == "passed"
        near = np.asarray(data.original.logits) + rng.normal(scale=s / 20, size=(200, 1))
        innocent += run(with_logits(data, near), Limits(auroc_loss=true_loss), 100).verdict == "passed"
    assert passed <= 8  # 5 % of 60 is 3; 9 or more come by chance once in 300 times
    assert innocent == runs


@pytest.mark.parametrize("what", ["logits", "maps", "shape", "again", "original"])
def test_nan_and_infinity_are_refused(what: str) -> None:
    data = make(images=50)
    bad = np.array(data.original.logits)
    bad[[6, 11], 1] = np.nan, np.inf
    bad_maps = np.array(data.original.maps)
    bad_maps[[6, 11], 0, 2, 2] = np.inf
    damaged = {
        "logits": lambda: with_logits(data, bad),
        "maps": lambda: with_maps(data, bad_maps),
        "shape": lambda: replace(data, other_shapes={"batch 4": bad}),
        "again": lambda: replace(data, again=replace(data.original, logits=bad)),
        "original": lambda: replace(data, original=replace(data.original, logits=bad)),
    }
    with pytest.raises(BuildError, match=r"2 of 50 images without, first 7, 12") as caught:
        damaged[what]()
    assert caught.value.code == "score.not-finite"


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("labels", np.zeros((50, 3)), "labels: the shape is"),
        ("labels", np.full((50, 2), 2.0), "a label is 1, 0 or NaN"),
        ("patients", np.zeros(49), "patients: the shape is"),
        ("findings", ("edema",), "images x 1 findings"),
        ("findings", ("edema", "edema"), "named twice"),
        ("thresholds", {"gout": 1.0}, r"unknown: \['gout'\]"),
        ("thresholds", {"mass": np.nan}, "thresholds are finite"),
        ("other_shapes", {"batch 4": np.zeros((50, 1))}, "batch 4: the shape is"),
        ("image_hashes", ("a",), "image_hashes: the shape is"),
    ],
)
def test_what_does_not_fit_is_an_error(field: str, value: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(make(images=50), **{field: value})


def test_maps_on_one_side_only_or_of_another_grid_are_an_error() -> None:
    data = make(images=50)
    with pytest.raises(ValueError, match="either both models have maps or none"):
        with_maps(data, None)
    with pytest.raises(ValueError, match="maps of int8: the shape is"):
        with_maps(data, np.zeros((50, 2, 3, 3)))


def test_without_labels_the_rest_is_held_and_the_report_says_so() -> None:
    report = run(make(labels=None))
    assert (report.verdict, report.labelled) == ("passed", False)
    assert [each.name for each in report.not_run] == ["auroc_loss", "class_auroc_loss"]
    assert report.notes[0] == "Label-free gates run over all 800 images x 2 findings, 1600 decisions."
    assert any("no labels" in note for note in report.notes)


def test_what_is_not_held_is_listed_and_nothing_held_is_nothing_shown() -> None:
    bare = make(other_shapes={})
    bare = replace(
        bare,
        original=replace(bare.original, maps=None),
        candidate=replace(bare.candidate, maps=None),
        again=None,
    )
    report = run(bare)
    assert {each.name for each in report.not_run} == {"batch_delta", "map_correlation", "map_overlap"}
    assert {each.noise_floor for each in report.gates} == {None}
    assert run(bare, Limits()).verdict == "inconclusive"
    assert run(bare, Limits(map_overlap=0.5)).verdict == "inconclusive"


def test_findings_with_few_or_no_labels() -> None:
    labels = np.array(make().labels)
    labels[10:, 1] = np.nan
    report = run(make(labels=labels))
    worst = gate(report, "class_auroc_loss")
    assert (worst.verdict, worst.finding, worst.patients_needed) == ("inconclusive", "mass", 60)
    assert gate(report, "auroc_loss").verdict == "passed"  # of edema, and the report names what is missing
    assert [(each.name, each.finding) for each in report.not_run] == [("auroc_loss", "mass")]
    labels[:, 1] = np.nan
    report = run(make(labels=labels))
    assert report.verdict == "passed"
    assert [(each.name, each.finding) for each in report.not_run] == [("class_auroc_loss", "mass")]


def test_labels_of_one_kind_are_inconclusive() -> None:
    report = run(make(labels=np.zeros((800, 2))), Limits(auroc_loss=1.0, class_auroc_loss=1.0))
    assert [(each.verdict, each.value) for each in report.gates] == [("inconclusive", None)] * 2
    assert report.findings[0].auroc is None


def test_an_original_that_says_always_the_same_is_inconclusive() -> None:
    data = make()
    flat = replace(data.original, logits=np.zeros((800, 2)))
    report = run(with_logits(replace(data, original=flat, again=None), np.zeros((800, 2))))
    assert [(each.name, each.value) for each in report.gates if each.verdict != "passed"] == [
        (name, None) for name in ("spearman", "mean_delta", "max_delta", "batch_delta")
    ]


def test_noise_beyond_the_bound_is_said() -> None:
    data = make()
    noisy = replace(data.original, logits=noise(data, 0.2))
    changed = with_logits(replace(data, again=noisy), noise(data, 0.2, seed=5))
    report = run(changed, Limits(mean_delta=0.1, flips=0.001, spearman=0.5))
    for each in (gate(report, "mean_delta"), gate(report, "flips")):
        assert each.verdict == "refused"
        assert each.noise_floor > each.bound
        assert "noise floor" in each.reason
    assert gate(report, "spearman").reason is None


def test_units_of_copies_alone_are_no_known_patients() -> None:
    data = make(images=400, patients=np.minimum(np.arange(400), 398), patients_known=False)
    report = run(data)
    assert (report.patients, report.clustered_by) == (399, "image")
    assert any("Patients are not known" in note and "copies of one" in note for note in report.notes)


def test_a_number_stands_for_one_image() -> None:
    with pytest.raises(ValueError, match="two images"):
        make(images=40, image_numbers=(1,) * 40)


def test_stored_thresholds_are_named() -> None:
    report = run(make(thresholds={"mass": 0.5}))
    assert any("stored thresholds: mass 0.5." in note for note in report.notes)
    assert "0.5 (stored)" in gate_text(report)
    assert "(reference)" in gate_text(report)


def test_disagreements_are_numbered_from_one_and_hashed() -> None:
    hashes = tuple(f"{n:064x}" for n in range(800))
    report = run(_outlier(make(image_hashes=hashes)))
    row = int(np.asarray(make().original.logits)[:, 1].argmax())
    (shown,) = report.disagreements
    assert (shown.image, shown.sha256, shown.finding) == (row + 1, hashes[row], "mass")
    assert shown.candidate - shown.original == pytest.approx(50)
    assert shown.map_correlation == 1.0


def test_the_json_fits_its_schema_and_holds_no_patient() -> None:
    data = make(patients=np.array([f"PATIENT-{n}" for n in range(800)]))
    for each in (data, with_logits(data, noise(data, 1.0)), replace(data, labels=None, patients=None)):
        document = to_json(run(each))
        jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text(encoding="utf-8"))).validate(
            json.loads(document)
        )
        assert b"PATIENT" not in document


def test_the_same_data_and_seed_give_the_same_report() -> None:
    data = make()
    changed = with_logits(data, noise(data, 0.1))
    assert run(changed) == run(changed)
    assert run(changed) != run_gates(changed, LIMITS["int8"], draws=200, seed=1)


@pytest.mark.parametrize("wrong", [{"confidence": 1.0}, {"reference_rate": 0.0}, {"draws": 0}])
def test_settings_that_mean_nothing_are_an_error(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        run_gates(make(images=10), Limits(), **wrong)


def test_labels_that_say_nothing_are_none() -> None:
    report = run(make(labels=np.full((800, 2), np.nan)))
    assert not report.labelled
    assert "auroc_loss" in {each.name for each in report.not_run}


@pytest.mark.parametrize("threshold", [50.0, -50.0])
def test_a_stored_threshold_beyond_the_scores_settles_nothing(threshold: float) -> None:
    """As of a probability or a percentage in the place of a logit: nothing could change sides."""
    data = make(thresholds={"edema": threshold})
    gates = {gate.name: gate for gate in run(with_logits(data, noise(data, 1e-6))).gates}
    for name in ("flips", "finding_flips"):
        assert gates[name].verdict == "inconclusive"
        assert "threshold of edema" in str(gates[name].reason)
