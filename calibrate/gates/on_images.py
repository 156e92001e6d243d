"""Gates on images of a site: two ways of scoring them are brought before the gates; what a pass is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.gates.data import GateData, ModelScores
from promptray.calibrate.gates.report import GateReport
from promptray.calibrate.gates.table import headline, unpassed
from promptray.calibrate.image_set import ImageSet, Progress, counted
from promptray.calibrate.same_picture import set_sha256
from promptray.runtime.answers import Answers
from promptray.runtime.bound_heads import BoundHead
from promptray.runtime.bundle.manifest import Head, Manifest
from promptray.runtime.engines.facts import ImagesGate
from promptray.runtime.errors import BuildError
from promptray.runtime.golden import answers_of
from promptray.runtime.graphs import Graphs
from promptray.runtime.preprocess import normalise

_TOGETHER = 4  # images of a call whose shape must not matter
_SHAPE = f"batches of {_TOGETHER}"
_BLOCK = 64  # pictures as floats at a time


@dataclass(frozen=True)
class Scored:
    """Answers to all images by head: one at a time, and several together."""

    alone: Mapping[str, Answers]
    together: Mapping[str, Answers]

    def model(self, name: str, head: str, sha256: str | None = None) -> ModelScores:
        """Return what a head says, for the gates."""
        return ModelScores(name, self.alone[head].logits, self.alone[head].maps, sha256)


@dataclass(frozen=True)
class ImagesHeld:
    """The images of a set that gates are held on.

    Attributes
    ----------
    images : ImageSet
    places : sequence of int
        Which of its rows, counted from 0 among those that were not refused.
    """

    images: ImageSet
    places: Sequence[int]

    @classmethod
    def all(cls, images: ImageSet) -> ImagesHeld:
        """Return every image that was not refused."""
        return cls(images, range(len(images.rows)))

    @property
    def notes(self) -> list[str]:
        """What a report says of them."""
        notes = [f"The images: {self.images.source}."]
        if self.images.refused:
            refused = counted(self.images.refused)
            notes.append(f"The door refused images, which are not gated on: {refused}.")
        return notes

    def pictures(self, places: slice) -> list[NDArray[Any]]:
        """Return some of the pictures, levels 0..255."""
        return self.images.pictures([self.images.rows[place] for place in self.places[places]])

    def data(self, manifest: Manifest, head: Head, original: tuple[str, str | None, Scored],
             candidate: tuple[str, str | None, Scored]) -> GateData:  # fmt: skip
        """Return what the gates of a head look at; both sides are (name, sha256, answers)."""
        keys, images, own = [each.key for each in manifest.findings_of(head.name)], self.images, self.places
        (first, first_sha256, theirs), (second, second_sha256, ours) = original, candidate
        labels = images.labels_for(keys)
        return GateData(
            findings=tuple(keys),
            original=theirs.model(first, head.name, first_sha256),
            candidate=ours.model(second, head.name, second_sha256),
            again=ModelScores(f"the same in {_SHAPE}", theirs.together[head.name].logits),
            other_shapes={_SHAPE: ours.together[head.name].logits},
            labels=None if labels is None else labels[own],
            patients=images.patients[own],
            patients_known=images.patients_known,
            image_hashes=tuple(images.sha256s[place] for place in own),
            image_numbers=tuple(images.numbers[place] for place in own),
        )

    def passed(self, reports: Mapping[str, GateReport], *, refused: str, inconclusive: str) -> ImagesGate:
        """Return the gate as it is stored, where every head passed.

        Parameters
        ----------
        reports : mapping of str to GateReport
            By head.
        refused, inconclusive : str
            What cures either.

        Raises
        ------
        BuildError
            ``gate.failed`` or ``gate.inconclusive``, with every gate that was not passed.
        """
        said = [headline(each) for each in reports.values() if each.verdict != "passed"]
        if said:
            failed = any(each.verdict == "refused" for each in reports.values())
            raise BuildError(
                "gate.failed" if failed else "gate.inconclusive",
                f"{'; '.join(said)}; nothing was stored",
                artefact=self.images.source,
                expected="every gate passed",
                found="\n".join(line for name, each in reports.items() for line in unpassed(each, name)),
                cure=refused if failed else inconclusive,
            )
        digest = hashlib.sha256(b"".join(as_document(reports[name]) for name in sorted(reports)))
        sha256 = set_sha256([self.images.sha256s[place] for place in self.places])
        return ImagesGate(images=len(self.places), sha256=sha256, report=digest.hexdigest())


def as_document(report: GateReport) -> bytes:
    """Return a report as the bytes of its file."""
    return msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n"


def score_pictures(
    graphs: Graphs,
    heads: Mapping[str, BoundHead],
    pictures: Callable[[slice], Sequence[NDArray[Any]]],
    images: ImagesHeld,
    progress: Progress,
    what: str,
) -> Scored:
    """Score pictures one at a time and several together.

    Parameters
    ----------
    graphs, heads
        What scores.
    pictures : callable
        Returns those of a slice, as the network sees them, levels 0..255.
    images : ImagesHeld
        Of which they are.
    progress : callable
    what : str
        What progress calls the scorer.
    """
    chain, many = graphs.chain(heads.values()), len(images.places)
    found: dict[int, list[dict[str, Answers]]] = {1: [], _TOGETHER: []}
    for first in range(0, many, _BLOCK):
        progress("images", f"{what}: {first} of {many} images", first / many)
        block = np.stack(pictures(slice(first, first + _BLOCK)))
        pixels = normalise(block, images.images.preprocessing)
        for batch, parts in found.items():
            parts.append(answers_of(chain, heads, pixels, batch=batch))
    return Scored(*(_joined(parts) for parts in found.values()))


def _joined(parts: list[dict[str, Answers]]) -> dict[str, Answers]:
    return {name: Answers.joined([each[name] for each in parts]) for name in parts[0]}
