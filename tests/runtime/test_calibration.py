"""A calibration gives probabilities with NumPy alone, never falling, and refuses what is no number."""

from __future__ import annotations

import json

import msgspec
import numpy as np
import pytest

from promptray.runtime.calibration import Calibration, Curve, Isotonic, Platt, Temperature
from promptray.runtime.errors import ScoringError

CURVES: list[Curve] = [
    Platt(slope=0.7, intercept=-2.0),
    Temperature(temperature=1.7),
    Isotonic(logits=[-1.0, 0.5, 0.6, 4.0], probabilities=[0.01, 0.01, 0.4, 0.9]),
]
LOGITS = np.linspace(-50, 50, 4001)


def of(curve: Curve) -> Calibration:
    return Calibration(
        finding="edema",
        bundle="0" * 64,
        curve=curve,
        images=300,
        positives=100,
        patients=250,
        date="2024-05-06",
    )


@pytest.mark.parametrize("curve", CURVES)
def test_probabilities_never_fall_and_stay_inside(curve: Curve) -> None:
    found = of(curve).apply(LOGITS.reshape(-1, 1))
    assert found.shape == (4001, 1)
    assert found.min() >= 0
    assert found.max() <= 1
    assert (np.diff(found.ravel()) >= -1e-15).all()
    assert found[-1] - found[0] > 0.8
    assert of(curve).apply(0.3) == of(curve).apply([0.3])[0]


def test_known_values() -> None:
    platt, temperature, isotonic = (of(curve) for curve in CURVES)
    assert platt.apply([0, 1]) == pytest.approx(1 / (1 + np.exp([2.0, 1.3])))
    assert temperature.apply([0, 1.7]) == pytest.approx([0.5, 1 / (1 + np.exp(-1))])
    assert isotonic.apply([-9, -1, 0.55, 2.3, 9]) == pytest.approx([0.01, 0.01, 0.205, 0.65, 0.9])
    assert platt.apply([-1e308, 1e308]).tolist() == [0.0, 1.0]  # and no overflow is warned of


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_has_no_probability(curve: Curve, bad: float) -> None:
    with pytest.raises(ScoringError) as caught:
        of(curve).apply([0.0, bad])
    assert caught.value.code == "score.not-finite"


@pytest.mark.parametrize("curve", CURVES)
def test_it_survives_json(curve: Curve) -> None:
    text = msgspec.json.encode(of(curve))
    again = msgspec.json.decode(text, type=Calibration)
    assert again == of(curve)
    assert (again.apply(LOGITS) == of(curve).apply(LOGITS)).all()


@pytest.mark.parametrize(
    "curve",
    [
        {"method": "platt", "slope": 0.0, "intercept": 0.0},
        {"method": "platt", "slope": -1.0, "intercept": 0.0},
        {"method": "temperature", "temperature": 0.0},
        {"method": "isotonic", "logits": [0.0], "probabilities": [0.5]},
        {"method": "isotonic", "logits": [0.0, 0.0], "probabilities": [0.1, 0.5]},
        {"method": "isotonic", "logits": [0.0, 1.0], "probabilities": [0.5, 0.4]},
        {"method": "isotonic", "logits": [0.0, 1.0], "probabilities": [-0.1, 0.4]},
        {"method": "isotonic", "logits": [0.0, 1.0], "probabilities": [0.1, 1.4]},
        {"method": "isotonic", "logits": [0.0, 1.0, 2.0], "probabilities": [0.1, 0.4]},
        {"method": "beta", "slope": 1.0},
    ],
)
def test_what_is_no_curve_is_refused(curve: dict[str, object]) -> None:
    document = json.loads(msgspec.json.encode(of(CURVES[0])))
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(json.dumps({**document, "curve": curve}), type=Calibration)


@pytest.mark.parametrize(
    "make", [lambda x: Platt(slope=1.0, intercept=x), lambda x: Temperature(temperature=x)]
)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_curve_holds_finite_numbers(make, bad: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        make(bad)
