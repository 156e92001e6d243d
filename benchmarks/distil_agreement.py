"""Hold students of the reference model against their teachers, on patients that neither of them saw.

The committed reference model was trained on all 144 openly licensed radiographs and knows some of them by
heart. Nobody's student can learn that from other images, and no deployment asks for it. So there are two
rows:

``cross-fitted``
    One teacher for each of three folds of patients, trained by `reference.train` on the other two. Its
    student learns from the images that the teacher learned from, and both are held against each other on the
    fold that neither saw. A fold's logits are brought to its teacher's mean and spread; folds are pooled.
``committed``
    A student of the committed model, which learned from its 144 children, on the frontal radiographs of
    adults from two other sources: the only ones here that this teacher never saw, and another population.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from promptray.calibrate.auroc import auroc
from promptray.calibrate.bootstrap import patient_draws, percentile_interval
from promptray.calibrate.distil.checkpoint import read_facts, student_model
from promptray.calibrate.distil.images import DistilImages
from promptray.calibrate.distil.run import distil
from promptray.calibrate.distil.settings import Distil
from promptray.calibrate.distil.views import pixels
from promptray.calibrate.gates import LIMITS, GateData, ModelScores, run_gates
from promptray.calibrate.gates.table import gate_text
from promptray.calibrate.quantise.calibration_images import CalibrationImages, calibration_images
from promptray.calibrate.ranking import Ranking, once
from promptray.export.families import family
from promptray.export.families.base import LoadedModel
from promptray.export.recipe import Recipe, read_recipe
from promptray.runtime.errors import BuildError
from promptray.runtime.text import TextEncoder
from reference.model import save_checkpoint
from reference.radiographs import LICENCE, SOURCE, read_radiographs
from reference.student import KNOWN, OTHERS, REFERENCE, frontal_adults
from reference.train import Experiment

FOLDS, SEED, EPOCHS, DRAWS = 3, 0, 80, 2000


@dataclass(frozen=True, eq=False)
class Films:
    """Images with what is known of them; labels (n, k) are 1, 0 or NaN."""

    read: CalibrationImages
    labels: NDArray[np.float64]
    patients: NDArray[np.str_]

    def learned(self, rows: NDArray[np.intp]) -> DistilImages:
        """Return some of them to learn from; the labels are not used."""
        pictures = self.read.feeds.pictures[rows]
        hashes = [hashlib.sha256(each.tobytes()).hexdigest() for each in pictures]
        digest = hashlib.sha256(";".join(hashes).encode()).hexdigest()
        facts = msgspec.structs.replace(self.read.facts, images=len(rows), sha256=digest)
        return DistilImages(pictures, facts, hashes, self.patients[rows])


class Reference:
    """The reference model's recipe, its findings, and teachers of that recipe."""

    def __init__(self, data: Path, work: Path) -> None:
        self.data, self.work = data, work
        self.recipe: Recipe = read_recipe(REFERENCE / "recipe.yaml")
        self.prompts = {each.key: str(each.prompt) for each in self.recipe.findings}
        self.committed = self.load(REFERENCE / self.recipe.checkpoint)
        text = self.committed.text
        assert text is not None
        encoder = TextEncoder(text.rule, text.tokenizer)
        self.findings = {key: encoder.encode_finding([said]) for key, said in self.prompts.items()}

    def load(self, checkpoint: Path) -> LoadedModel:
        text_model = REFERENCE / str(self.recipe.text_model)
        return family(self.recipe.family).load(checkpoint, text_model, self.recipe.model_options)

    def read(self, paths: Sequence[Path], source: str) -> CalibrationImages:
        return calibration_images(paths, self.recipe.door, self.committed.preprocessing, source=source)

    def children(self) -> Films:
        """Read the images that reference models are trained on."""
        shown = read_radiographs(self.data)
        truths = [{"no pneumonia"} if each.label == "normal" else {"pneumonia", f"{each.label} pneumonia"}
                  for each in shown]  # fmt: skip
        labels = np.array([[float(key in true) for key in self.prompts] for true in truths])
        patients = np.array([each.patient for each in shown])
        return Films(self.read([each.path for each in shown], SOURCE), labels, patients)

    def adults(self) -> Films:
        """Read frontal images of other sources: whether there is a pneumonia, and not of which kind."""
        rows = frontal_adults(self.data)
        labels = [[KNOWN.get(row["pneumonia"], {}).get(key, np.nan) for key in self.prompts] for row in rows]
        read = self.read([self.data / "cxr" / row["file"] for row in rows], " and ".join(OTHERS))
        return Films(read, np.array(labels), np.array([row["patient_id"] for row in rows]))

    def folds(self) -> Iterator[tuple[LoadedModel, NDArray[np.intp], NDArray[np.intp]]]:
        """Give each fold's teacher, the rows it was trained on, and the others; teachers are kept."""
        options = argparse.Namespace(
            out=REFERENCE, seed=SEED, folds=FOLDS, device="cpu", epochs=EPOCHS, data=self.data
        )
        experiment = Experiment(options)
        labels, patients = experiment.labels, experiment.patients
        splitter = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=SEED)
        for fold, (train, test) in enumerate(splitter.split(labels, labels, patients)):
            path = self.work / f"teacher-{fold}-of-{FOLDS}.ckpt"
            if not path.exists():
                print(f"teacher {fold + 1} of {FOLDS}", flush=True)
                made, _ = experiment.fit(train, fold=fold)
                save_checkpoint(made, path, epochs=EPOCHS, steps=EPOCHS * -(-len(train) // 24))
            yield self.load(path), train, test

    def student(self, teacher: LoadedModel, images: DistilImages, settings: Distil, name: str) -> LoadedModel:
        """Distil, or take what an earlier run has distilled."""
        folder = self.work / name / hashlib.sha256(msgspec.json.encode(settings)).hexdigest()[:16]
        try:
            read_facts(folder)
        except BuildError:
            distil(
                teacher,
                {"findings": self.findings},
                settings,
                images,
                folder,
                lambda stage, said, _: print(name, settings.name, stage, said, flush=True),
                answers=self.work / "answers",
            )
        return student_model(teacher, folder)


@dataclass(frozen=True, eq=False)
class Held:
    """Teacher and student on images that neither saw."""

    theirs: ModelScores
    ours: ModelScores
    labels: NDArray[np.float64]
    patients: NDArray[np.str_]


def held(reference: Reference, models: Sequence[LoadedModel], films: Films, rows: NDArray[np.intp]) -> Held:
    """Score images with teacher and student, in spreads of the teacher about its mean."""
    taken = pixels([films.read.feeds.pictures[row] for row in rows], models[0].preprocessing)
    chosen = list(reference.findings.values())
    found = [model.heads[0].reference(taken, chosen) for model in models]
    mean, spread = found[0].logits.mean(0), found[0].logits.std(0)
    theirs, ours = (
        ModelScores(name, (each.logits - mean) / spread, maps=each.maps)
        for name, each in zip(("teacher", "student"), found, strict=True)
    )
    return Held(theirs, ours, films.labels[rows], films.patients[rows])


def gates_of(reference: Reference, parts: Sequence[Held]) -> dict[str, Any]:
    """Hold the pooled parts to the limits of a student, and compare AUROCs within each part."""

    def pooled(side: str) -> ModelScores:
        scores = [getattr(part, side) for part in parts]
        logits = np.concatenate([each.logits for each in scores])
        return ModelScores(scores[0].name, logits, maps=np.concatenate([each.maps for each in scores]))

    data = GateData(
        tuple(reference.prompts),
        pooled("theirs"),
        pooled("ours"),
        labels=np.concatenate([part.labels for part in parts]),
        patients=np.concatenate([part.patients for part in parts]),
    )
    report = run_gates(data, LIMITS["student"])
    print(gate_text(report), flush=True)
    return {
        "images": data.images,
        "patients": len(set(data.patient_of)),
        "verdict": report.verdict,
        "auroc": within_parts(reference, parts),
        "gates": msgspec.to_builtins(report.gates),
    }


def within_parts(reference: Reference, parts: Sequence[Held]) -> dict[str, Any]:
    """Return AUROCs of teacher and student, means over parts, and the loss with its interval by patient."""
    numbers = [n for n in range(len(reference.prompts)) if not np.isnan(parts[0].labels[:, n]).all()]
    patients = np.concatenate([part.patients for part in parts])
    blocks = [once(len(patients)), *patient_draws(patients, draws=DRAWS, seed=SEED)]
    sides = np.array(
        [np.concatenate([_aurocs(parts, number, each) for each in blocks], axis=1) for number in numbers]
    )
    losses = sides[:, 0] - sides[:, 1]
    keys = list(reference.prompts)
    rows = {
        keys[number]: {
            "teacher": float(sides[n, 0, 0]),
            "student": float(sides[n, 1, 0]),
            "loss": _interval(losses[n]),
        }
        for n, number in enumerate(numbers)
    }
    return {"findings": rows, "mean loss": _interval(losses.mean(0)), "worst loss": float(losses[:, 0].max())}


def _aurocs(parts: Sequence[Held], number: int, weights: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the AUROCs (2, d) of teacher and student in each draw, means over the parts."""
    found, start = [], 0
    for part in parts:
        drawn = weights[start : start + len(part.labels)]
        start += len(part.labels)
        known = ~np.isnan(part.labels[:, number])
        truth = part.labels[known, number] == 1
        sides = (Ranking(each.logits[known, number]) for each in (part.theirs, part.ours))
        found.append([auroc(truth, side, drawn[known]) for side in sides])
    mean: NDArray[np.float64] = np.array(found).mean(0)
    return mean


def _interval(values: NDArray[np.float64]) -> dict[str, float | None]:
    low, high, _ = percentile_interval(values[1:])
    return {"value": float(values[0]), "low": low, "high": high}


def agreement(data: Path, work: Path, students: Sequence[Distil]) -> dict[str, Any]:
    """Distil and hold: every student of the fold's teachers, the first of the committed model."""
    work.mkdir(parents=True, exist_ok=True)
    reference = Reference(data, work)
    children, adults = reference.children(), reference.adults()
    folds = list(reference.folds())
    found: dict[str, Any] = {
        "licence": f"learned from {SOURCE}, {LICENCE}",
        "cross-fitted": {},
        "committed": {},
    }
    for settings in students:
        parts = []
        for number, (teacher, train, test) in enumerate(folds):
            images = children.learned(train)
            student = reference.student(teacher, images, settings, f"fold-{number}")
            parts.append(held(reference, (teacher, student), children, test))
        row = {"settings": msgspec.to_builtins(settings), **gates_of(reference, parts)}
        found["cross-fitted"][settings.name] = row
    images, models = children.learned(np.arange(len(children.labels))), [reference.committed]
    models.append(reference.student(reference.committed, images, students[0], "committed"))
    part = held(reference, models, adults, np.arange(len(adults.labels)))
    found["committed"][students[0].name] = gates_of(reference, [part])
    return found
