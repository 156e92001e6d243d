from __future__ import annotations

import pytest

from promptray.calibrate.adapt.recommend import recommend, verdict
from promptray.calibrate.adapt.report import Difference, StageName
from promptray.calibrate.evaluation_report import Estimate

STAGES: list[StageName] = ["zero-shot", "probe", "fine-tune"]


def more(value: float, low: float | None, high: float | None) -> Estimate:
    return Estimate(value=value, low=low, high=high, draws=100)


GAIN, LOSS, NOTHING = more(0.2, 0.1, 0.3), more(-0.2, -0.3, -0.1), more(0.0, -0.1, 0.1)


def differences(first: Estimate, second: Estimate, third: Estimate, **also: Estimate) -> list[Difference]:
    """zero-shot to probe, zero-shot to fine-tune, probe to fine-tune; `also` stands in the first."""
    return [
        Difference(earlier="zero-shot", later="probe", numbers={"kappa": first, **also}),
        Difference(earlier="zero-shot", later="fine-tune", numbers={"kappa": second}),
        Difference(earlier="probe", later="fine-tune", numbers={"kappa": third}),
    ]


@pytest.mark.parametrize(
    ("first", "second", "third", "stage"),
    [
        (GAIN, GAIN, GAIN, "fine-tune"),
        (GAIN, GAIN, NOTHING, "probe"),
        (GAIN, GAIN, LOSS, "probe"),
        (NOTHING, NOTHING, GAIN, "zero-shot"),
        (LOSS, GAIN, GAIN, "fine-tune"),
        (NOTHING, GAIN, NOTHING, "fine-tune"),
    ],
)
def test_only_an_interval_that_excludes_0_moves_on(
    first: Estimate, second: Estimate, third: Estimate, stage: str
) -> None:
    advice = recommend(STAGES, differences(first, second, third), "kappa", 20, "patients")
    assert advice.stage == stage
    assert len(advice.reasons) == 2


def test_reasons_say_what_was_found() -> None:
    advice = recommend(STAGES, differences(GAIN, GAIN, NOTHING), "kappa", 20, "patients")
    assert advice.reasons == [
        "The probe is better than zero-shot: kappa +0.200 (+0.100 to +0.300); the interval of the difference "
        "excludes 0.",
        "Fine-tuning is not shown to be better than the probe: kappa +0.000 (-0.100 to +0.100); the interval "
        "holds 0.",
    ]


def test_what_a_better_stage_loses_is_said() -> None:
    found = differences(GAIN, GAIN, NOTHING, sensitivity=LOSS, specificity=NOTHING)
    advice = recommend(STAGES, found, "kappa", 20, "patients")
    assert advice.stage == "probe"
    assert (
        "But the probe is worse than zero-shot in sensitivity: -0.200 (-0.300 to -0.100)." in advice.reasons
    )
    assert not any("specificity" in reason for reason in advice.reasons)


def test_few_units_recommend_nothing_however_clear_the_interval() -> None:
    advice = recommend(STAGES, differences(GAIN, GAIN, GAIN), "kappa", 9, "patients")
    assert advice.stage is None
    assert "9 patients, fewer than 10" in advice.reasons[-1]
    assert not any("is better" in reason for reason in advice.reasons)


def test_one_stage_and_a_number_that_is_not_there() -> None:
    assert recommend(["probe"], [], "kappa", 20, "patients").stage is None
    empty = [Difference(earlier="zero-shot", later="probe", numbers={})]
    advice = recommend(["zero-shot", "probe"], empty, "kappa", 20, "patients")
    assert advice.stage == "zero-shot"
    assert advice.reasons == ["The probe and zero-shot cannot be compared by kappa."]


def test_touching_0_says_nothing() -> None:
    assert verdict(more(0.1, 0.0, 0.2), 20) == "not shown"
    assert verdict(more(-0.1, -0.2, 0.0), 20) == "not shown"
    assert verdict(more(0.1, None, None), 20) == "inconclusive"
