"""The stage that gates: a changed model against its original, on the images of the recipe."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import numpy as np

from promptray.calibrate.gates import GateData, Limits, ModelScores, run_gates
from promptray.calibrate.gates.page import gate_page
from promptray.calibrate.gates.report import GateReport
from promptray.calibrate.gates.table import WORDS, gate_text, headline
from promptray.calibrate.pipeline.image_set import ImageSet, Progress
from promptray.calibrate.pipeline.scores import Call, Model, scores
from promptray.export.stage_cache import StageCache
from promptray.runtime.answers import Answers
from promptray.runtime.bundle.candidate import Of
from promptray.runtime.bundle.manifest import Head
from promptray.runtime.errors import BuildError

ALONE = Call()
#: Another shape of call: of the original it is the noise floor, of the candidate it must not matter.
TOGETHER = Call(batch=4, threads=1)
_SHAPE = "batches of 4 on one thread"


@dataclass(frozen=True)
class Held:
    """A gate that was held.

    Attributes
    ----------
    name : str
        ``head-<name>`` or ``text``: the stem of its files.
    head : str
    of : {"scores", "added prompts"}
    report : GateReport
    json, page : bytes
        The report, and the same as an HTML page without pictures.
    """

    name: str
    head: str
    of: Of
    report: GateReport
    json: bytes
    page: bytes


class Gates:
    """Holds candidates against one original.

    Parameters
    ----------
    original : Model
        fp32.
    images : ImageSet
    limits : Limits
    stages : StageCache
    progress : callable
    """

    def __init__(
        self, original: Model, images: ImageSet, limits: Limits, stages: StageCache, progress: Progress
    ) -> None:
        self._original, self._images, self._limits = original, images, limits
        self._stages, self._progress = stages, progress

    def hold(self, candidate: Model, head: Head, name: str, of: Of) -> Held:
        """Hold one head of a candidate against the original's; `name` and `of` as in :class:`Held`."""
        images, labels = self._images, self._labels(head)
        settled = {
            "original": self._original.key,
            "candidate": candidate.key,
            "judged": candidate.judged(of),
            "head": head.name,
            "pictures": images.sha256s,
            "limits": asdict(self._limits),
            "labels": None if labels is None else np.nan_to_num(labels, nan=-1).tolist(),
            "patients": None if images.patients is None else images.patients.tolist(),
            "refused": images.refused_rows,
            "of": of,
            "named": [
                images.source,
                candidate.draft.manifest.name,
                [(graph.title, graph.precision) for graph in candidate.draft.manifest.graphs],
                msgspec.to_builtins(candidate.draft.manifest.provenance.distilled),
            ],
        }
        key = self._stages.key("gate", settled)
        folder, _ = self._stages.run("gate", key, lambda out: self._hold(candidate, head, of, out))
        report = msgspec.json.decode((folder / "report.json").read_bytes(), type=GateReport)
        files = ((folder / file).read_bytes() for file in ("report.json", "page.html"))
        return Held(name, head.name, of, report, *files)

    def _hold(self, candidate: Model, head: Head, of: Of, out: Path) -> None:
        data = self._data(candidate, head, of)
        self._progress("gate", "drawing intervals", 0.95)
        report = run_gates(data, self._limits)
        notes = [*report.notes, f"The images: {self._images.source}."]
        if rows := self._images.refused_rows:
            notes.append(f"The door refused {len(rows)} images, which are not gated on: {'; '.join(rows)}.")
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
        report = msgspec.structs.replace(report, notes=notes)
        (out / "report.json").write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
        (out / "page.html").write_text(gate_page(report, data), encoding="utf-8")

    def _data(self, candidate: Model, head: Head, of: Of) -> GateData:
        manifest = candidate.draft.manifest
        what = "candidate" if of == "scores" else "candidate, added prompts"
        alone, together = (self._scores(candidate, call, head, what) for call in (ALONE, TOGETHER))
        first, again = (self._scores(self._original, call, head, "original") for call in (ALONE, TOGETHER))
        parts = [f"{g.title} {g.precision}" for g in manifest.graphs]
        if manifest.provenance.distilled is not None:
            parts.insert(0, f"student {manifest.provenance.distilled.student}")
        precision = ", ".join(parts)
        return GateData(
            findings=tuple(each.key for each in manifest.findings_of(head.name)),
            original=ModelScores("the fp32 original", first.logits, first.maps, self._original.sha256),
            candidate=ModelScores(
                f"{manifest.name} ({precision})", alone.logits, alone.maps, candidate.judged(of)
            ),
            again=ModelScores(f"the same in {_SHAPE}", again.logits, again.maps),
            other_shapes={_SHAPE: together.logits},
            labels=self._labels(head),
            patients=self._images.patients,
            image_hashes=tuple(self._images.sha256s),
        )

    def _scores(self, model: Model, call: Call, head: Head, what: str) -> Answers:
        shape = "" if call == ALONE else f", {_SHAPE}"
        return scores(model, self._images, call, self._stages, self._progress, what + shape)[head.name]

    def _labels(self, head: Head) -> np.ndarray | None:
        manifest = self._original.draft.manifest
        return self._images.labels_for([each.key for each in manifest.findings_of(head.name)])


def require_passed(held: list[Held], folder: Path, artefact: str, cure: str) -> None:
    """Refuse candidates of which a gate was not passed, leaving the reports beside the output.

    Raises
    ------
    BuildError
        ``gate.failed`` or ``gate.inconclusive``, with the gates that were not passed.
    """
    _clear(folder)
    if all(each.report.verdict == "passed" for each in held):
        return
    folder.mkdir(exist_ok=True)
    for each in held:
        (folder / f"{each.name}.json").write_bytes(each.json)
        (folder / f"{each.name}.html").write_bytes(each.page)
        (folder / f"{each.name}.txt").write_text(gate_text(each.report), encoding="utf-8")
    refused = any(each.report.verdict == "refused" for each in held)
    needed = _needed(held)
    more = (
        f"{needed} patients would settle it if nothing else changes; add images" if needed else "add images"
    )
    raise BuildError(
        "gate.failed" if refused else "gate.inconclusive",
        "; ".join(headline(each.report) for each in held if each.report.verdict != "passed")
        + "; no bundle was written",
        artefact=artefact,
        expected="every gate passed",
        found="\n".join(line for each in held for line in _unpassed(each)),
        cure=f"the reports are in {folder.name}; {cure}"
        if refused
        else f"{more} to the section 'gate' (reports in {folder.name})",
    )


def _clear(folder: Path) -> None:
    """Remove the reports of an earlier build; nothing else is in such a folder."""
    if folder.is_dir():
        for pattern in ("head-*", "text.*"):
            for path in folder.glob(pattern):
                path.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()


def _unpassed(held: Held) -> list[str]:
    lines = []
    for gate in held.report.gates:
        if gate.verdict == "passed":
            continue
        words, form = WORDS[gate.name]
        value = "not measured" if gate.value is None else f"{gate.value:{form}}"
        if gate.low is not None and gate.high is not None:
            value += f" ({gate.low:{form}} to {gate.high:{form}})"
        reason = f"; {gate.reason}" if gate.reason else ""
        finding = f" [{gate.finding}]" if gate.finding else ""
        lines.append(
            f"{held.name}: {words}{finding}: {value}, bound {gate.sense} {gate.bound:g}: "
            f"{gate.verdict}{reason}"
        )
    return lines


def _needed(held: list[Held]) -> int | None:
    found = [
        gate.patients_needed for each in held for gate in each.report.gates if gate.verdict == "inconclusive"
    ]
    known = [number for number in found if number is not None]
    return max(known) if known else None
