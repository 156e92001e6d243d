"""The stage that gates: a changed model against its original, on the images of the recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.gates import GateData, Limits, ModelScores, run_gates
from promptray.calibrate.gates.page import gate_page, sealed_page
from promptray.calibrate.gates.report import GateReport, sealed
from promptray.calibrate.image_set import ImageSet, Progress, counted
from promptray.calibrate.pipeline.scores import Call, Model, scores
from promptray.export.stage_cache import StageCache
from promptray.runtime.answers import Answers
from promptray.runtime.bundle.candidate import Of
from promptray.runtime.bundle.manifest import Head, Manifest

ALONE = Call()
#: Another shape of call: of the original it is the noise floor, of the candidate it must not matter.
TOGETHER = Call(batch=4, threads=1)
#: Flag a finding at this logit or more: head -> key -> threshold.
Thresholds = Mapping[str, Mapping[str, float]]
_SHAPE = "batches of 4 on one thread"


@dataclass(frozen=True)
class Asked:
    """What the gates are held on, and for.

    Attributes
    ----------
    images : ImageSet
    limits : Limits
    thresholds : mapping of str to mapping of str to float
        Head -> key -> the logit that a finding is flagged at, where the recipe states one.
    pictures : bool
        Whether the pages that stay here show pictures.
    notes : sequence of str
        What the reports say of the images beside their source.
    """

    images: ImageSet
    limits: Limits
    thresholds: Thresholds = field(default_factory=dict)
    pictures: bool = False
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Held:
    """A gate that was held.

    Attributes
    ----------
    name : str
        ``head-<name>`` or ``text``: the stem of its files.
    consumer : str
        What it was held on: the backend, of changed graphs with the class of machines.
    head : str
    of : {"scores", "added prompts"}
    report : GateReport
        With the images that differ most: it stays in the house.
    page : str
        The same as an HTML page, with both models' maps of these images.
    sealed, sealed_page : bytes
        The report and its page without what is about single images, for the bundle.
    """

    name: str
    consumer: str
    head: str
    of: Of
    report: GateReport
    page: str
    sealed: bytes
    sealed_page: bytes

    @property
    def backend(self) -> str:
        """The backend alone."""
        return self.consumer.partition("@")[0]


class Gates:
    """Holds candidates against one original.

    Parameters
    ----------
    original : Model
        fp32.
    asked : Asked
    stages : StageCache
    progress : callable
    """

    def __init__(self, original: Model, asked: Asked, stages: StageCache, progress: Progress) -> None:
        self._original, self._asked, self._images = original, asked, asked.images
        self._stages, self._progress = stages, progress

    @property
    def key(self) -> dict[str, object]:
        """What every verdict depends on, beside the candidate."""
        asked, images = self._asked, self._images
        labels = {head.name: self._labels(head) for head in self._original.draft.manifest.heads}
        return {
            "original": self._original.key,
            "pictures": images.sha256s,
            "limits": asdict(asked.limits),
            "thresholds": {name: dict(each) for name, each in asked.thresholds.items()},
            "labels": {
                name: None if known is None else np.nan_to_num(known, nan=-1).tolist()
                for name, known in labels.items()
            },
            "patients": [images.patients_known, images.patients.tolist()],
        }

    def hold(self, candidate: Model, head: Head, name: str, of: Of) -> Held:
        """Hold one head of a candidate against the original's; `name` and `of` as in :class:`Held`."""
        key = self._stages.key("gate", self._settled(candidate, head, of))
        folder, _ = self._stages.run("gate", key, lambda out: self._hold(candidate, head, of, out))
        report = msgspec.json.decode((folder / "report.json").read_bytes(), type=GateReport)
        page = (folder / "page.html").read_text(encoding="utf-8")
        if self._asked.pictures:  # a finished stage holds none
            page = gate_page(report, self._data(candidate, head, of), self._picture)
        files = ((folder / file).read_bytes() for file in ("sealed.json", "sealed.html"))
        return Held(name, candidate.consumer, head.name, of, report, page, *files)

    def _settled(self, candidate: Model, head: Head, of: Of) -> dict[str, object]:
        """Return what a report depends on."""
        asked, images, manifest = self._asked, self._images, candidate.draft.manifest
        labels = self._labels(head)
        return {
            "original": self._original.key,
            "candidate": candidate.key,
            "judged": candidate.judged(of),
            "head": head.name,
            "pictures": images.sha256s,
            "numbers": images.numbers,
            "limits": asdict(asked.limits),
            "thresholds": self._thresholds(head),
            "labels": None if labels is None else np.nan_to_num(labels, nan=-1).tolist(),
            "patients": [images.patients_known, images.patients.tolist()],
            "refused": images.refused_rows,
            "of": of,
            "named": [
                images.source,
                list(asked.notes),
                manifest.name,
                _parts(manifest),
                msgspec.to_builtins(manifest.provenance.distilled),
                msgspec.to_builtins(manifest.provenance.distilled_text),
            ],
        }

    def _hold(self, candidate: Model, head: Head, of: Of, out: Path) -> None:
        data = self._data(candidate, head, of)
        self._progress("gate", "drawing intervals", 0.95)
        report = run_gates(data, self._asked.limits)
        own = [*report.notes, *self._notes(candidate, of)]
        here = msgspec.structs.replace(report, notes=[*own, *self._refused(rows=True)])
        away = sealed(msgspec.structs.replace(report, notes=[*own, *self._refused(rows=False)]))
        (out / "report.json").write_bytes(as_json(here))
        (out / "page.html").write_text(gate_page(here, data), encoding="utf-8")
        (out / "sealed.json").write_bytes(as_json(away))
        (out / "sealed.html").write_text(sealed_page(away, data), encoding="utf-8")

    def _notes(self, candidate: Model, of: Of) -> list[str]:
        notes = [f"The images: {self._images.source}.", *self._asked.notes]
        student = candidate.draft.manifest.provenance.distilled
        if student is not None:
            notes.append(
                f"In the place of the image tower the candidate has a student, {student.student}. It learned "
                f"from it on {student.images.images} other images: {student.images.source}."
            )
        if of == "added prompts":
            notes.append(
                "The candidate's findings were encoded by its own text graph, as prompts added later will be."
            )
            if (text := candidate.draft.manifest.provenance.distilled_text) is not None:
                notes.append(
                    f"That graph has {text.layers} of the checkpoint's {text.teacher_layers} blocks and "
                    f"learned from {text.wordings} wordings; those scored here, and the topics of held-out "
                    "ones, were not among them."
                )
        return notes

    def _refused(self, *, rows: bool) -> list[str]:
        """Say what the door refused: which rows, or only how many for which reason."""
        images = self._images
        if not images.refused_rows:
            return []
        which = "; ".join(images.refused_rows) if rows else counted(images.refused)
        return [f"The door refused {len(images.refused_rows)} images, which are not gated on: {which}."]

    def _data(self, candidate: Model, head: Head, of: Of) -> GateData:
        manifest, images = candidate.draft.manifest, self._images
        what = "candidate" if of == "scores" else "candidate, added prompts"
        alone, together = (self._scores(candidate, call, head, what) for call in (ALONE, TOGETHER))
        first, again = (self._scores(self._original, call, head, "original") for call in (ALONE, TOGETHER))
        parts = _parts(manifest)
        if manifest.provenance.distilled is not None:
            parts.insert(0, f"student {manifest.provenance.distilled.student}")
        return GateData(
            findings=tuple(each.key for each in manifest.findings_of(head.name)),
            original=ModelScores("the fp32 original", first.logits, first.maps, self._original.sha256),
            candidate=ModelScores(
                f"{manifest.name} ({', '.join(parts)})", alone.logits, alone.maps, candidate.judged(of)
            ),
            again=ModelScores(f"the same in {_SHAPE}", again.logits, again.maps),
            other_shapes={_SHAPE: together.logits},
            labels=self._labels(head),
            patients=images.patients,
            patients_known=images.patients_known,
            thresholds=self._thresholds(head),
            image_hashes=tuple(images.sha256s),
            image_numbers=tuple(images.numbers),
        )

    def _scores(self, model: Model, call: Call, head: Head, what: str) -> Answers:
        shape = "" if call == ALONE else f", {_SHAPE}"
        return scores(model, self._images, call, self._stages, self._progress, what + shape)[head.name]

    def _labels(self, head: Head) -> NDArray[np.float64] | None:
        manifest = self._original.draft.manifest
        return self._images.labels_for([each.key for each in manifest.findings_of(head.name)])

    def _thresholds(self, head: Head) -> dict[str, float]:
        return dict(self._asked.thresholds.get(head.name, {}))

    def _picture(self, place: int) -> NDArray[np.uint8]:
        """Return an image as the network saw it, in grey."""
        levels = self._images.pictures([self._images.rows[place]])[0].astype(np.float64)
        grey = levels.mean(axis=2) if levels.ndim == 3 else levels
        return np.clip(np.rint(grey), 0, 255).astype(np.uint8)


def _parts(manifest: Manifest) -> list[str]:
    """Name graphs and banks with their precisions."""
    parts = [f"{graph.title} {graph.precision}" for graph in manifest.graphs]
    return parts + [f"bank {h.name} {h.bank.stored}" for h in manifest.heads if h.bank.stored != "float32"]


def as_json(report: GateReport) -> bytes:
    """Return a report as its document."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"
