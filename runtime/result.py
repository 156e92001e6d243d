"""What a score comes back as: values by finding, the map on request, and a versioned JSON document.

The document carries what a DICOM structured report will need: who said it (software, bundle, backend, gates),
about what (UIDs, frame, size, spacing, the image-to-network transform), what (findings with codes and values)
and what to be careful about (notices). UIDs appear here and nowhere else: never in logs or errors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from promptray.runtime.backends import BackendFacts
from promptray.runtime.bundle.manifest import Code, ModelFacts
from promptray.runtime.calibration import Method
from promptray.runtime.errors import PromptError, PromptRayError, ScoringError
from promptray.runtime.finding_names import ByFinding, FindingName
from promptray.runtime.geometry import Geometry, map_to_original
from promptray.runtime.json_schema import schema_of
from promptray.runtime.operating_point import Rule
from promptray.runtime.region import Extent, RegionScore, region_score


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the document's structures."""


class CalibrationRef(_Struct, frozen=True, kw_only=True):
    """What a probability and a flag rest on: they hold for images like those, with as many of the finding."""

    id: str
    """sha256 of the calibration's document: the name of its file."""
    source: Literal["site"]
    """Who made it: the site, on its own labelled images."""
    method: Method
    images: int
    patients: int | None
    """None where the site did not say whose the images were."""
    prevalence: float
    """Share of those images that had the finding."""
    date: str
    """Of the fit, UTC."""
    rule: Rule | None
    """How the threshold was chosen; None where there is none."""
    target: float | None
    """The share that the threshold was to keep."""


class Score(_Struct, frozen=True, kw_only=True):
    """The score of one finding.

    Attributes
    ----------
    logit : float
        The model's raw score. Ranks images for one finding; it is not a probability. Where a finding is asked
        against its negative, the difference of the two.
    softmax : float or None
        Where findings are alternatives: this one's share, 0..1, of the softmax over `among`. It compares
        these wordings with each other; it is not the probability of a disease.
    among : list of str or None
        The set that `softmax` adds up to 1 over.
    sigmoid : float or None
        Where the model was trained to say yes or no to each finding: 1 / (1 + exp(-logit)), as its authors
        report it. Nobody calibrated it; it is not the probability of a disease.
    probability : float or None
        Only where the site has calibrated this finding on its own labelled images. Never made of `softmax` or
        `sigmoid`, which stay beside it.
    threshold : float or None
        The logit from which on this finding is flagged, where the site stored one.
    flag : bool or None
        Whether the logit is at least `threshold`.
    calibration : CalibrationRef or None
        What `probability`, `threshold` and `flag` rest on; None where they are None.
    """

    logit: float
    softmax: float | None = None
    among: list[str] | None = None
    sigmoid: float | None = None
    probability: float | None = None
    threshold: float | None = None
    flag: bool | None = None
    calibration: CalibrationRef | None = None


class Summary(_Struct, frozen=True, kw_only=True):
    """What the scores of alternatives say together. Shares of a softmax, no probabilities of a disease.

    Attributes
    ----------
    head : str
    relation : {'exclusive', 'ordinal'}
    most_likely : str
        Key of the finding with the largest share.
    expected_rank : float or None
        Of an ordinal head: the mean of the findings' places, 1 for the first, weighted by their shares.
    groups : dict of str to float
        Sum of the shares of each named union of findings, 0..1.
    """

    head: str
    relation: Literal["exclusive", "ordinal"]
    most_likely: str
    expected_rank: float | None
    groups: dict[str, float]


class FindingScore(_Struct, frozen=True, kw_only=True):
    """One finding in the document."""

    key: str
    """Unique within its head."""
    display: str
    head: str
    prompts: list[str]
    """Its wordings: an ensemble where there are several."""
    negative_prompts: list[str]
    """The wordings it was asked against; empty unless the head scores pairs."""
    origin: Literal["bundle", "site", "session"]
    """Whether the prompt came with the bundle, from the site directory, or was added to this scorer only."""
    code: Code | None
    score: Score


class BundleRef(_Struct, frozen=True, kw_only=True):
    """The bundle behind the scores, with what a user must know of its model."""

    name: str
    family: str
    sha256: str
    site_revision: int | None
    model: ModelFacts


class GateRef(_Struct, frozen=True, kw_only=True):
    """A gate the graphs passed before they were used."""

    name: str
    passed: bool
    detail: str


class SourceRef(_Struct, frozen=True, kw_only=True):
    """What was scored."""

    name: str
    """Base name of the file, or what the caller called it; never a folder."""
    kind: str
    rows: int
    columns: int
    modality: str | None
    modality_declared: bool
    frame: int | None
    sop_instance_uid: str | None
    series_instance_uid: str | None
    study_instance_uid: str | None
    pixel_spacing: tuple[float, float] | None
    pixel_spacing_source: str | None
    transfer_syntax: str | None
    view: str | None
    """Projection by the tags, for example ``MLO``; two terms where tags contradict each other: ``CC/MLO``."""
    laterality: str | None
    """``L``, ``R``, ``B`` (both) or ``U`` (unpaired) by the tags."""
    view_modifiers: tuple[str, ...]
    """What sets it apart from the plain view, for example ``spot compression``."""


class NoticeRef(_Struct, frozen=True, kw_only=True):
    """Something to be careful about."""

    code: str
    message: str


class ResultDocument(_Struct, frozen=True, kw_only=True):
    """The JSON document of one scored image."""

    schema: Literal["promptray-result"]
    schema_version: Literal[5]
    software: str
    bundle: BundleRef
    backend: BackendFacts
    gates: list[GateRef]
    source: SourceRef
    transform: dict[str, Any]
    findings: list[FindingScore]
    summaries: list[Summary]
    """What alternatives say together, one for each head that has them."""
    notices: list[NoticeRef]
    timing_ms: dict[str, float]


def result_schema() -> dict[str, Any]:
    """Return the JSON Schema of the result document."""
    return schema_of(ResultDocument)


class Result:
    """Scores of one image. Immutable; safe to share between threads.

    A finding is named by its key. Where several heads have that key it takes head and key, and the key alone
    is refused (``prompt.ambiguous``): ``result.scores["tags", "pneumonia"]``,
    ``result.heatmap(("tags", "pneumonia"))``.

    Attributes
    ----------
    document : ResultDocument
        Everything but the maps.

    Examples
    --------
    >>> result.scores["pneumonia"].logit          # doctest: +SKIP
    1.83
    >>> result.heatmap("pneumonia").shape         # doctest: +SKIP
    (2048, 2500)
    """

    def __init__(
        self,
        document: ResultDocument,
        maps: Sequence[NDArray[np.float32] | None],
        geometry: Geometry,
    ) -> None:
        self.document = document
        self._geometry = geometry
        each = zip(document.findings, maps, strict=True)
        self._maps = ByFinding((finding.head, finding.key, grid) for finding, grid in each)

    @property
    def name(self) -> str:
        """Base name of the file, or what the caller called it."""
        return self.document.source.name

    @property
    def scores(self) -> ByFinding[Score]:
        """Scores by finding, in the bank's order, one head after the other."""
        return ByFinding((each.head, each.key, each.score) for each in self.document.findings)

    @property
    def summaries(self) -> Mapping[str, Summary]:
        """What the findings of a head say together where they are alternatives, by head."""
        return MappingProxyType({summary.head: summary for summary in self.document.summaries})

    @property
    def summary(self) -> Summary | None:
        """The only one of `summaries`, or None where findings are no alternatives.

        Raises
        ------
        PromptError
            ``prompt.ambiguous`` where several heads have one.
        """
        if len(self.document.summaries) > 1:
            raise PromptError(
                "prompt.ambiguous",
                "several heads have a summary",
                expected=" or ".join(self.summaries),
                cure="take `summaries` and name the head",
            )
        return next(iter(self.document.summaries), None)

    @property
    def timing(self) -> Mapping[str, float]:
        """Milliseconds of each stage (read, decode, window, check, resize, image, head, post) and in total.

        ``check`` is the door's policy, ``post`` makes scores and document of the heads' answers. On a GPU
        ``infer`` stands for image and head, with the copies to the device and back: they are one call, from
        its submission to the answer.
        """
        return MappingProxyType(self.document.timing_ms)

    @property
    def notices(self) -> tuple[NoticeRef, ...]:
        """What to be careful about, as stable codes with a message."""
        return tuple(self.document.notices)

    def grid(self, finding: FindingName) -> NDArray[np.float32]:
        """Return the map of a finding on the network's own grid, float32 (grid rows, grid columns).

        Raises
        ------
        PromptError
            ``prompt.unknown`` or ``prompt.ambiguous``.
        ScoringError
            ``score.map-unavailable`` when its head has no map.
        """
        grid = self._maps.find(finding)
        if grid is None:
            raise ScoringError("score.map-unavailable", "the head of this finding has no explanation map")
        return grid.copy()

    def heatmap(self, finding: FindingName) -> NDArray[np.float32]:
        """Return the map of a finding on the ORIGINAL image's pixel grid.

        Parameters
        ----------
        finding : str or (str, str)
            Key, or head and key.

        Returns
        -------
        float32 array, (rows, columns) of the source image
            Each pixel has the value of the grid cell that covers its centre; NaN where the network did not
            look (cropped away). Values are attention or similarity, as the bundle's head says: no
            probability, no proof.

        Raises
        ------
        PromptError, ScoringError
            As :meth:`grid`.
        """
        return map_to_original(self.grid(finding), self._geometry)

    def region(self, finding: FindingName, *, rows: Extent, columns: Extent) -> RegionScore:
        """Return what a box of the ORIGINAL image says of a finding: its map, pooled over the box.

        For a head that was trained to align regions with sentences (ASG's ``prompts``) this is the region's
        cosine with the finding's words. For any other it is no more than the mean of its map.

        Parameters
        ----------
        finding : str or (str, str)
            Key, or head and key.
        rows, columns : (float, float)
            First and last edge of the box, in pixels: pixel i covers [i, i + 1).

        Raises
        ------
        PromptError, ScoringError
            As :meth:`grid`; ``score.region`` for a box that is empty, not on the image, or cropped away.
        """
        return region_score(self.grid(finding), self._geometry, rows=rows, columns=columns)

    def to_json(self) -> dict[str, Any]:
        """Return the result document as plain containers (see ``docs/result.schema.json``)."""
        document: dict[str, Any] = msgspec.to_builtins(self.document)
        return document


class Refused:
    """An image of a batch that got no score. Reading its scores raises its error: it cannot be overlooked.

    Attributes
    ----------
    error : PromptRayError
        Why.
    name : str
        Base name of the file, or what kind of object it was.
    """

    def __init__(self, error: PromptRayError, name: str) -> None:
        self.error = error
        self.name = name

    @property
    def scores(self) -> ByFinding[Score]:
        """Raise the error."""
        raise self.error

    def heatmap(self, finding: FindingName) -> NDArray[np.float32]:
        """Raise the error."""
        raise self.error
