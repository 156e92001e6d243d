"""What the gates look at: the scores of the original and of the candidate on the same images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from promptray.runtime.errors import BuildError

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class ModelScores:
    """What one model says of n images and k findings.

    Attributes
    ----------
    name : str
        For the report: of a bundle or graph, never of a file of images.
    logits : ndarray of float, shape (n, k)
    maps : ndarray of float, shape (n, k, r, c), optional
        Heat maps on the model's own grid. Both models' maps must be on one grid: bring a student's
        other grid to the original's first.
    sha256 : str, optional
        Of the bundle or graph.
    """

    name: str
    logits: NDArray[np.floating]
    maps: NDArray[np.floating] | None = None
    sha256: str | None = None


@dataclass(frozen=True, eq=False)
class GateData:
    """The original and a candidate on the same n images and k findings, with what is known of the images.

    Attributes
    ----------
    findings : sequence of str
        Keys of the k findings.
    original, candidate : ModelScores
    again : ModelScores, optional
        The original built or called in another way (another opset, batch size, backend in true fp32): what
        differs from `original` is noise, and stands beside every gate.
    other_shapes : mapping of str to ndarray of float, shape (n, k)
        The candidate's logits in other shapes of call, for example ``{"batch 4": ...}``.
    labels : ndarray of float, shape (n, k), optional
        1 present, 0 absent, NaN unknown.
    patients : array of shape (n,), optional
        Whose image each is; by default every image is a patient's only one.
    patients_known : bool
        Whether `patients` says whose images they are. False where it knows no more than copies of a picture.
    thresholds : mapping of str to float
        Stored decision thresholds: a finding is flagged at this logit or more.
    image_hashes : sequence of str, optional
        To find an image again; the report holds these and numbers, no names.
    image_numbers : sequence of int, optional
        What the report calls the images, all different; by default they are counted from 1.

    Raises
    ------
    BuildError
        ``score.not-finite`` if a model gave NaN or infinity, in a logit or a map.
    ValueError
        If shapes disagree, there is no image or finding, or a label is none of 0, 1, NaN.
    """

    findings: tuple[str, ...]
    original: ModelScores
    candidate: ModelScores
    again: ModelScores | None = None
    other_shapes: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)
    labels: NDArray[np.floating] | None = None
    patients: NDArray[np.generic] | None = None
    patients_known: bool = True
    thresholds: Mapping[str, float] = field(default_factory=dict)
    image_hashes: tuple[str, ...] | None = None
    image_numbers: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be gated."""
        shape = np.shape(self.original.logits)
        if len(shape) != 2 or 0 in shape or shape[1] != len(self.findings):
            raise ValueError(f"logits are images x {len(self.findings)} findings, not {shape}")
        if len(set(self.findings)) != len(self.findings):
            raise ValueError("a finding is named twice")
        self._same("labels", self.labels, shape)
        self._same("patients", self.patients, shape[:1])
        self._same("image_hashes", self.image_hashes, shape[:1])
        self._same("image_numbers", self.image_numbers, shape[:1])
        if len(set(self.numbers)) != self.images:
            raise ValueError("a number stands for two images")
        labels = np.empty(0) if self.labels is None else np.asarray(self.labels, float)
        if not np.isin(labels[~np.isnan(labels)], (0, 1)).all():
            raise ValueError("a label is 1, 0 or NaN")
        unknown = set(self.thresholds) - set(self.findings)
        if unknown or not np.isfinite(list(self.thresholds.values())).all():
            raise ValueError(f"thresholds are finite and of these findings; unknown: {sorted(unknown)}")
        for model in (self.original, self.candidate, self.again):
            if model is not None:
                self._check_model(model, shape)
        for name, logits in self.other_shapes.items():
            self._same(name, logits, shape)
            _refuse_not_finite(f"{self.candidate.name}, {name}", "logits", logits)

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.original.logits)

    @property
    def numbers(self) -> tuple[int, ...]:
        """What the report calls each image."""
        return self.image_numbers or tuple(range(1, self.images + 1))

    @property
    def patient_of(self) -> NDArray[np.int64]:
        """Whose image each is, numbered from 0, shape (n,)."""
        if self.patients is None:
            return np.arange(self.images)
        return np.unique(np.asarray(self.patients), return_inverse=True)[1].reshape(-1)

    def _check_model(self, model: ModelScores, shape: tuple[int, ...]) -> None:
        self._same(f"logits of {model.name}", model.logits, shape)
        _refuse_not_finite(model.name, "logits", model.logits)
        maps = self.original.maps
        if model is not self.again and (model.maps is None) != (maps is None):
            raise ValueError("either both models have maps or none has")
        if model.maps is None or maps is None:
            return
        if np.ndim(maps) != 4:
            raise ValueError(f"maps are images x findings x rows x columns, not {np.shape(maps)}")
        self._same(f"maps of {model.name}", model.maps, (*shape, *np.shape(maps)[2:]))
        _refuse_not_finite(model.name, "maps", model.maps)

    @staticmethod
    def _same(what: str, values: ArrayLike | None, shape: tuple[int, ...]) -> None:
        if values is not None and np.shape(values) != shape:
            raise ValueError(f"{what}: the shape is {np.shape(values)}, not {shape}")


def _refuse_not_finite(model: str, what: str, values: NDArray[np.floating]) -> None:
    finite = np.isfinite(np.asarray(values, np.float64))
    if finite.all():
        return
    images = np.flatnonzero(~finite.reshape(len(finite), -1).all(1)) + 1
    named = ", ".join(str(image) for image in images[:5])
    raise BuildError(
        "score.not-finite",
        "a model to be gated gives NaN or infinity",
        artefact=model,
        expected=f"finite {what}",
        found=f"{len(images)} of {len(finite)} images without, first {named} (counted from 1)",
        cure="keep the layers that overflow in a wider type",
    )
