"""The linear probe: logistic regression on the image vectors of a frozen tower.

scikit-learn's, with its L2 penalty, on standardised vectors. The standardising is folded back into weight and
bias, so that the probe is one product with the vector as the tower gives it. How strong the penalty is, is
chosen by cross-validation inside the training part, whole units (patients) being held out.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.adapt.progress import Progress

if TYPE_CHECKING:
    from sklearn.linear_model import LogisticRegression

ClassWeights = Literal["none", "balanced"]
Floats = NDArray[np.floating]

#: Inverse strengths of the penalty that are tried, weakest last.
GRID = tuple(float(c) for c in np.logspace(-5, 2, 8))
#: What is used where too few units hold a class to hold some out.
DEFAULT_C = 0.01
_FOLDS = 5
_ITERATIONS = 10_000
#: Of the median deviation: a number of the vector that hardly moves is not blown up to the size of others.
_LEAST_DEVIATION = 1e-3


@dataclass(frozen=True)
class Probe:
    """A fitted probe: logits = vectors @ weight.T + bias.

    Attributes
    ----------
    weight : ndarray of float32, shape (K, D)
    bias : ndarray of float32, shape (K,)
    c : float
        Inverse strength of the penalty.
    losses : list of (float, float)
        Each inverse strength with the log loss of the units held out; empty where it was not chosen so.
    folds : int
        Of the cross-validation.
    converged : bool
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    c: float
    losses: list[tuple[float, float]]
    folds: int
    converged: bool


def fit_probe(
    vectors: Floats,
    classes: NDArray[np.int64],
    units: NDArray[np.int64],
    count: int,
    *,
    class_weights: ClassWeights = "none",
    seed: int = 0,
    progress: Progress = lambda stage, message, fraction: None,
) -> Probe:
    """Fit a probe to the training part.

    Parameters
    ----------
    vectors : ndarray, shape (n, D)
        As the tower gives them: not of unit length.
    classes, units : ndarray of int, shape (n,)
        `units` are held out whole.
    count : int
        Number of classes; each occurs.
    class_weights : {"none", "balanced"}
        Whether each image counts once, or each class.
    seed : int
        Of the folds.
    progress : callable
        Called with (stage, message, fraction).
    """
    folds = _folds(classes, units, count, seed)
    losses = []
    for number, c in enumerate(GRID if folds else ()):
        progress("probe", f"penalty {number + 1} of {len(GRID)}", number / len(GRID))
        held_out = []
        for fit, out in folds:
            weight, bias, _ = fold(vectors[fit], classes[fit], c, class_weights, tolerance=1e-3)
            held_out.append(_log_loss(_logits(vectors[out], weight, bias), classes[out]))
        losses.append((c, float(np.concatenate(held_out).mean())))
    best = min(losses, key=lambda pair: pair[1])[0] if losses else DEFAULT_C
    weight, bias, converged = fold(vectors, classes, best, class_weights, tolerance=1e-6)
    return Probe(weight.astype(np.float32), bias.astype(np.float32), best, losses, len(folds), converged)


def fold(
    vectors: Floats, classes: NDArray[np.int64], c: float, class_weights: ClassWeights, *, tolerance: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], bool]:
    """Fit once, and return weight (K, D), bias (K,) for vectors as they are, and whether it converged.

    `tolerance` is that of the solver: the largest part of the gradient that it stops at.
    """
    wide = vectors.astype(np.float64)
    mean, deviation = wide.mean(0), wide.std(0)
    deviation = np.maximum(deviation, _LEAST_DEVIATION * np.median(deviation))
    deviation[deviation == 0] = 1
    model = _regression(c, class_weights, tolerance).fit((wide - mean) / deviation, classes)
    weight, bias = _per_class(model)
    weight = weight / deviation
    return weight, bias - weight @ mean, bool((model.n_iter_ < _ITERATIONS).all())


def _regression(c: float, class_weights: ClassWeights, tolerance: float) -> LogisticRegression:
    from sklearn.linear_model import LogisticRegression

    balanced = None if class_weights == "none" else "balanced"
    return LogisticRegression(C=c, class_weight=balanced, max_iter=_ITERATIONS, tol=tolerance)


def _per_class(model: LogisticRegression) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a row for each class: of two classes scikit-learn has one row, their difference."""
    weight, bias = np.asarray(model.coef_, np.float64), np.asarray(model.intercept_, np.float64)
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return weight, bias


def _folds(
    classes: NDArray[np.int64], units: NDArray[np.int64], count: int, seed: int
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Return (rows to fit, rows held out), units whole, every class to fit; none where there is no way."""
    from sklearn.model_selection import StratifiedGroupKFold

    fewest = min(len(np.unique(units[classes == number])) for number in range(count))
    if fewest < 2:
        return []
    splitter = StratifiedGroupKFold(min(_FOLDS, len(np.unique(units))), shuffle=True, random_state=seed)
    with warnings.catch_warnings():  # a class of fewer units than folds is looked at here
        warnings.simplefilter("ignore", UserWarning)
        found = list(splitter.split(np.zeros(len(classes)), classes, units))
    whole = [(fit, out) for fit, out in found if len(np.unique(classes[fit])) == count and len(out)]
    return whole if len(whole) > 1 else []


def _logits(vectors: Floats, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> NDArray[np.float64]:
    made: NDArray[np.float64] = vectors.astype(np.float64) @ weight.T + bias
    return made


def _log_loss(logits: NDArray[np.float64], classes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each image's negative log-likelihood, shape (n,)."""
    shifted = logits - logits.max(1, keepdims=True)
    loss: NDArray[np.float64] = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(len(classes)), classes]
    return loss
