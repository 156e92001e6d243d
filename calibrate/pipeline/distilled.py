"""The stage that distils: from the original's sources to those of a model with a student for its tower."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.image_set import ImageSet, Progress
from promptray.calibrate.pipeline.recipe import DistilRecipe
from promptray.calibrate.quantise.scheme import Int8
from promptray.calibrate.tables.csv_file import read_table
from promptray.export.build import Checked, encoded_findings
from promptray.export.sources import Sources
from promptray.export.stage_cache import StageCache
from promptray.runtime.bundle.calibration_set import CalibrationSet
from promptray.runtime.bundle.fields import Sha256, Text
from promptray.runtime.bundle.manifest import Distilled, Provenance
from promptray.runtime.disk import hash_file
from promptray.runtime.errors import BuildError

if TYPE_CHECKING:
    from promptray.calibrate.distil.images import DistilImages
    from promptray.export.families.base import LoadedModel
    from promptray.runtime.text import EncodedFinding

_ABOUT = "about.json"


class _About(msgspec.Struct, frozen=True):
    """What later stages need of a student, without torch."""

    weights: Sha256
    teacher: Sha256
    warnings: list[Text]


class StudentSources(Sources):
    """A recipe's files with a student in the place of the image tower.

    Parameters
    ----------
    teacher : Sources
    path : Path
        The recipe's file.
    folder : Path
        The finished stage of the student.
    settings : DistilRecipe
    images : CalibrationSet
        What it learned from.
    """

    def __init__(
        self, teacher: Sources, path: Path, folder: Path, settings: DistilRecipe, images: CalibrationSet
    ) -> None:
        super().__init__(teacher.recipe, path)
        self._teacher, self._folder = teacher, folder
        about = msgspec.json.decode((folder / _ABOUT).read_bytes(), type=_About)
        self.warnings = about.warnings
        self.distilled = Distilled(
            student=settings.settings.name, weights=about.weights, teacher=about.teacher, images=images
        )

    @cached_property
    def model(self) -> LoadedModel:
        """The teacher with the student for its tower; the reference of its heads is its own arithmetic."""
        from promptray.calibrate.distil.checkpoint import student_model

        return student_model(self._teacher.model, self._folder)

    def hashes(self) -> dict[str, object]:
        """Return what the exported graphs depend on."""
        settings, weights = self.distilled.student, self.distilled.weights
        return {**super().hashes(), "student": [settings, weights, self.distilled.images.images]}

    def provenance(self, libraries: dict[str, str], read: list[str] | None) -> Provenance:
        """Return where the bundle comes from: the checkpoint is the teacher's."""
        return msgspec.structs.replace(super().provenance(libraries, read), distilled=self.distilled)


def distilled(
    settings: DistilRecipe,
    path: Path,
    sources: Sources,
    teacher: Checked,
    images: ImageSet,
    stages: StageCache,
    progress: Progress,
    scheme: Int8 | None = None,
) -> StudentSources:
    """Make a student, or take it from the cache; a killed run goes on where it stopped.

    Parameters
    ----------
    settings : DistilRecipe
    path : Path
        The recipe's file.
    sources : Sources
        Of the teacher.
    teacher : Checked
        Its findings' logits are learned.
    images : ImageSet
    stages : StageCache
        The teacher's answers to the images are kept in it, for other students.
    progress : callable
    scheme : Int8, optional
        How the image graph will be quantised, where that is simulated.

    Raises
    ------
    BuildError
        ``distil.*``.
    """
    root = path.resolve().parent
    lesson = _Lesson(
        settings,
        sources,
        teacher,
        images,
        weights=root / settings.weights if settings.weights else None,
        reports=_reports(root / settings.reports, images) if settings.reports else None,
        scheme=scheme,
    )
    key = stages.key("distil", lesson.key())
    work = stages.work("distil", key)
    folder, _ = stages.run("distil", key, lambda out: lesson.learn(work, out, progress))
    shutil.rmtree(work, ignore_errors=True)
    return StudentSources(sources, path, folder, settings, images.calibration_set)


@dataclass(frozen=True)
class _Lesson:
    """All that a student comes of."""

    settings: DistilRecipe
    sources: Sources
    teacher: Checked
    images: ImageSet
    weights: Path | None
    reports: list[str] | None
    scheme: Int8 | None

    def key(self) -> dict[str, object]:
        manifest, weights, known = self.teacher.draft.manifest, self.weights, self._labels
        patients = self._patients
        return {
            "teacher": self.sources.hashes(),
            "findings": msgspec.to_builtins(manifest.findings),
            "settings": msgspec.to_builtins([self.settings.settings, self.scheme]),
            "weights": hash_file(weights)[0] if weights is not None and weights.is_file() else None,
            "pictures": self.images.sha256s,
            "preprocessing": msgspec.to_builtins(self.images.preprocessing),
            "patients": None if patients is None else patients.tolist(),
            "labels": None if known is None else np.nan_to_num(known, nan=-1).tolist(),
            "reports": self.reports and [hashlib.sha256(text.encode()).hexdigest() for text in self.reports],
        }

    def learn(self, work: Path, out: Path, progress: Progress) -> None:
        """Train in `work`, which outlives a kill, and put what came of it into `out`."""
        progress("distil", "importing torch", 0.0)
        from promptray.calibrate.distil.checkpoint import FACTS, WEIGHTS
        from promptray.calibrate.distil.run import CURVE, HISTORY, distil

        facts = distil(
            self.sources.model,
            self._findings(),
            self.settings.settings,
            self._given(),
            work,
            progress,
            weights=self.weights,
            answers=work.parent / "teacher-answers",
            scheme=self.scheme,
        )
        for name in (WEIGHTS, FACTS, HISTORY, CURVE):
            shutil.copyfile(work / name, out / name)
        about = _About(facts.weights, facts.teacher, facts.warnings)
        (out / _ABOUT).write_bytes(msgspec.json.encode(about))

    def _findings(self) -> dict[str, dict[str, EncodedFinding]]:
        """Return the findings of each head as the teacher takes them, by key."""
        plan, text = self.teacher.plan, self.sources.model.text
        return {
            each.head.name: {
                finding.key: encoded
                for finding, encoded in zip(each.findings, encoded_findings(plan, each, text), strict=True)
            }
            for each in plan.heads
        }

    def _given(self) -> DistilImages:
        from promptray.calibrate.distil.images import DistilImages

        images, known = self.images, self._labels
        columns = {} if known is None else dict(zip(self._keys, known.T, strict=True))
        return DistilImages(
            np.stack(images.pictures(images.rows)),
            images.calibration_set,
            images.sha256s,
            patients=self._patients,
            reports=self.reports,
            labels={name: column for name, column in columns.items() if not np.isnan(column).all()},
        )

    @property
    def _keys(self) -> list[str]:
        return [finding.key for finding in self.teacher.draft.manifest.findings]

    @property
    def _labels(self) -> NDArray[np.float64] | None:
        return self.images.labels_for(self._keys)

    @property
    def _patients(self) -> NDArray[np.int64] | None:
        return self.images.patients if self.images.patients_known else None


def _reports(path: Path, images: ImageSet) -> list[str]:
    """Read what was said of each image; nothing of it is repeated in messages."""
    table = read_table(path)
    table.require("file", "report")
    said = {}
    for row in table.rows:
        name = row.cells["file"]
        said[images.folder.resolve(name) or name] = row.cells["report"]
    missing = [name for name in images.files if not said.get(name)]
    if missing:
        raise BuildError(
            "distil.images",
            "images have no report",
            artefact=f"{table.name}, columns file and report",
            expected="a report for each image",
            found=f"{len(missing)} of {len(images.files)} without one",
            cure="name them in the table, or take these images out of distil.labels",
        )
    return [said[name] for name in images.files]
