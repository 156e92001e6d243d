"""From a logit to a probability, as a site has calibrated it: three monotone functions in NumPy.

A calibration belongs to one finding of one bundle, and to images as those it was fitted on: with another
share of sick patients, or other machines, the probabilities are wrong by as much as these differ.
"""

from __future__ import annotations

import itertools
import math
from typing import Annotated, Literal

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import ArrayLike, NDArray

from promptray.runtime.bundle.fields import Key, Sha256
from promptray.runtime.errors import ScoringError

Positive = Annotated[float, Meta(gt=0)]
Count = Annotated[int, Meta(ge=1)]


Method = Literal["platt", "temperature", "isotonic"]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the structures: immutable, keyword-only, closed."""


class Platt(_Struct, frozen=True, tag_field="method", tag="platt"):
    """1 / (1 + exp(-(slope * logit + intercept))) (Platt, 1999)."""

    slope: Positive
    intercept: float

    def __post_init__(self) -> None:
        """Refuse what is no number."""
        _finite(self.slope, self.intercept)

    def apply(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return probabilities of the same shape."""
        return _sigmoid(self.slope * logits + self.intercept)


class Temperature(_Struct, frozen=True, tag_field="method", tag="temperature"):
    """1 / (1 + exp(-logit / temperature)) (Guo et al., ICML 2017).

    It cannot move the logit of probability one half away from 0: fit for models trained with a sigmoid only.
    """

    temperature: Positive

    def __post_init__(self) -> None:
        """Refuse what is no number."""
        _finite(self.temperature)

    def apply(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return probabilities of the same shape."""
        return _sigmoid(logits / self.temperature)


class Isotonic(_Struct, frozen=True, tag_field="method", tag="isotonic"):
    """A table, linear between its entries and constant beyond its ends (Zadrozny and Elkan, KDD 2002)."""

    logits: list[float]
    """Rising."""
    probabilities: list[float]
    """Never falling, inside 0..1, as many."""

    def __post_init__(self) -> None:
        """Refuse a table that is not one."""
        _finite(*self.logits, *self.probabilities)
        if len(self.logits) != len(self.probabilities) or len(self.logits) < 2:
            raise ValueError("a table has as many logits as probabilities, two at least")
        if not all(one < next_ for one, next_ in itertools.pairwise(self.logits)):
            raise ValueError("the logits of a table rise")
        if not all(one <= next_ for one, next_ in itertools.pairwise([0.0, *self.probabilities, 1.0])):
            raise ValueError("the probabilities of a table never fall and lie inside 0..1")

    def apply(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return probabilities of the same shape."""
        found: NDArray[np.float64] = np.interp(logits, self.logits, self.probabilities)
        return found


Curve = Platt | Temperature | Isotonic


class Calibration(_Struct, frozen=True):
    """How a site turns one finding's logits into probabilities, and what that rests on."""

    finding: Key
    bundle: Sha256
    """The only bundle that it holds for."""
    curve: Curve
    images: Count
    positives: Count
    patients: Count | None
    """None where the table of labels did not say whose the images are."""
    date: Annotated[str, Meta(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    """Of the fit, UTC."""

    def __post_init__(self) -> None:
        """Refuse counts that contradict each other."""
        if max(self.positives, self.patients or 0) > self.images:
            raise ValueError("there are no more positives, and no more patients, than images")

    @property
    def method(self) -> Method:
        """Name of the curve."""
        name: Method = self.curve.__struct_config__.tag  # type: ignore[assignment]
        return name

    @property
    def prevalence(self) -> float:
        """Share of positives among the images: the probabilities hold where it is alike."""
        return self.positives / self.images

    def apply(self, logits: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each logit.

        Parameters
        ----------
        logits : array_like of float, any shape

        Returns
        -------
        ndarray of float64
            The same shape, 0..1. A higher logit never has a lower probability, but for rounding.

        Raises
        ------
        ScoringError
            ``score.not-finite``.

        Examples
        --------
        >>> Platt(slope=2.0, intercept=0.0).apply(np.array([0.0]))
        array([0.5])
        """
        values = np.asarray(logits, np.float64)
        if not np.isfinite(values).all():
            raise ScoringError(
                "score.not-finite",
                "a logit that is not finite has no probability",
                artefact=self.finding,
                cure="find out why the model gave it; `promptray verify` tests the bundle",
            )
        return self.curve.apply(values)


def _sigmoid(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 / (1 + exp(-x)), without overflow at either end."""
    small = np.exp(-np.abs(values))
    found: NDArray[np.float64] = np.where(values >= 0, 1.0, small) / (1.0 + small)
    return found


def _finite(*numbers: float) -> None:
    if not all(math.isfinite(number) for number in numbers):
        raise ValueError("a calibration holds finite numbers only")
