"""The labelled images of a site with their scores: who they are of, and with which notices they came."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.probability.sample import Sample, sample
from promptray.calibrate.same_picture import united_patients
from promptray.calibrate.score_images import score_images
from promptray.calibrate.tables.image_folder import ImageFolder
from promptray.calibrate.tables.labels import LabelledImage, Labels, Uncertain, known
from promptray.calibrate.tables.scores import ScoreTable
from promptray.runtime.result import Result
from promptray.runtime.scorer import Scorer


@dataclass(frozen=True, eq=False)
class SiteImages:
    """n labelled images that were scored.

    Attributes
    ----------
    labels : Labels
    table : ScoreTable
        Rows as in `labels`.
    patients : ndarray of int64, shape (n,)
        As the table names them, those who share a picture united; -1 where there is no score.
    united : int
        How many of them count as another because they share a picture.
    notices : list of frozenset of str
        Codes of the notices that came with each image.
    """

    labels: Labels
    table: ScoreTable
    patients: NDArray[np.int64]
    united: int
    notices: list[frozenset[str]]

    def rows(self, key: str, uncertain: Uncertain) -> NDArray[np.intp]:
        """Return the rows that have a score and a label of a finding."""
        logits = self.table.values["logit"][:, self.table.keys.index(key)]
        counted, _ = self._known(key, uncertain)
        return np.flatnonzero(counted & ~np.isnan(logits))

    def sample(self, key: str, uncertain: Uncertain) -> Sample:
        """Return the logits and labels of a finding."""
        rows = self.rows(key, uncertain)
        logits = self.table.values["logit"][rows, self.table.keys.index(key)]
        present = self._known(key, uncertain)[1][rows]
        return sample(key, logits, present, self.patients[rows], named=self.labels.clustered)

    def notices_of(self, rows: NDArray[np.intp]) -> dict[str, int]:
        """Return how many of some images came with each notice."""
        return dict(Counter(code for row in rows for code in sorted(self.notices[row])))

    def _known(self, key: str, uncertain: Uncertain) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        return known(self.labels.values[:, self.labels.keys.index(key)], uncertain)


def score_site(
    scorer: Scorer,
    labels: Labels,
    folder: ImageFolder,
    *,
    head: str,
    modality: str | None = None,
    progress: Callable[[str, str, float], None] | None = None,
) -> SiteImages:
    """Score labelled images, and unite the patients who share a picture (see :class:`SiteImages`).

    Parameters
    ----------
    scorer, labels, folder, head, modality, progress
        As for :func:`promptray.calibrate.probability.site.calibrate_scorer`.
    """
    notices: list[frozenset[str]] = [frozenset()] * len(labels.images)
    row_of = {image.name: row for row, image in enumerate(labels.images)}
    of_prompts = {each.code for each in scorer.prompts.state.notices}

    def note(image: LabelledImage, result: Result) -> None:
        notices[row_of[image.name]] = frozenset(each.code for each in result.notices) - of_prompts

    table = score_images(
        scorer, labels.images, folder, head=head, modality=modality, progress=progress, visit=note
    )
    pictures = {row: each for row, each in enumerate(table.pictures or []) if each is not None}
    scored, own = list(pictures), labels.known_patients
    patients = np.full(len(labels.images), -1, np.int64)
    patients[scored] = united_patients(None if own is None else own[scored], list(pictures.values()))
    united = len(np.unique(labels.patients[scored])) - len(np.unique(patients[scored]))
    return SiteImages(labels, table, patients, united, notices)
