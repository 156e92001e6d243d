"""Agreement with the fp32 original on the site's images, by the gates of a build."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.accept.images import Scored
from promptray.calibrate.accept.reference import kept_limits
from promptray.calibrate.accept.report import Agreement, HeadAgreement, Part, ReferenceRef
from promptray.calibrate.evaluation_report import RefusedImage
from promptray.calibrate.gates import GateData, ModelScores, run_gates
from promptray.calibrate.gates.table import unpassed
from promptray.calibrate.gates.verdict import Verdict, overall
from promptray.calibrate.same_picture import united_patients
from promptray.calibrate.tables.labels import Labels, Uncertain, known
from promptray.runtime.backends import HOST, BackendFacts
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.manifest import Finding
from promptray.runtime.scorer import Scorer

_GOLDEN_ONLY = (
    "golden pictures only: the original's own fp32 graphs run on the CPU, and there is no --reference"
)
_NO_REFERENCE = (
    "what runs is not the original in fp32 on the CPU, and there is no --reference to hold it against on the "
    "images"
)


@dataclass(frozen=True)
class Statistics:
    """How labels count, and how intervals are drawn.

    Attributes
    ----------
    uncertain : {"ignore", "present", "absent"}
        What a label of -1 counts as.
    draws, seed : int
    """

    uncertain: Uncertain = "ignore"
    draws: int = 1000
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Side:
    """What is left of a scorer that was closed.

    Attributes
    ----------
    bundle : Bundle
    backend : BackendFacts
    findings : mapping of str to sequence of Finding
        What each head scored, in its order.
    thresholds : mapping of str to mapping of str to float
        Head -> key -> the logit that the site flags the finding at.
    scored : Scored
    """

    bundle: Bundle
    backend: BackendFacts
    findings: Mapping[str, Sequence[Finding]]
    thresholds: Mapping[str, Mapping[str, float]]
    scored: Scored

    @classmethod
    def of(cls, scorer: Scorer, scored: Scored) -> Side:
        """Keep what a scorer says of its findings."""
        heads = [head.name for head in scorer.bundle.manifest.heads]
        return cls(
            scorer.bundle,
            scorer.backend,
            {name: scorer.prompts.of_head(name) for name in heads},
            {name: scorer.prompts.state.thresholds_of(name) for name in heads},
            scored,
        )


def changed(backend: BackendFacts) -> bool:
    """Tell whether what runs is anything but the original's fp32 graphs on the CPU."""
    return backend.name != HOST or backend.gated_as is not None or backend.precision != "fp32"


def without_reference(backend: BackendFacts) -> tuple[Agreement, Part]:
    """Return what can be said of agreement where there is nothing to hold the scores against."""
    report = Agreement(against="golden pictures only", reference=None, heads=[], not_compared=[])
    if changed(backend):
        return report, Part(name="agreement", verdict="inconclusive", reason=_NO_REFERENCE)
    return report, Part(name="agreement", verdict="passed", reason=_GOLDEN_ONLY)


def hold_reference(
    ours: Side, reference: Side, labels: Labels | None, statistics: Statistics
) -> tuple[Agreement, Part]:
    """Hold the scores against the reference's by every gate, head by head.

    Findings are compared where both sides score them with the same wordings, images where both score them.
    What is scored here and not compared leaves the part inconclusive: nobody has shown that it agrees.
    """
    other = reference.bundle
    common = sorted(ours.scored.answers.keys() & reference.scored.answers.keys())
    heads, missing = [], []
    for name, keys in ours.scored.keys.items():
        same = _same_wordings(ours.findings[name], reference.findings[name])
        missing += [f"{name}: {key}" for key in keys if key not in same]
        if not common or not same:
            continue
        kind, limits = kept_limits(ours.bundle, other, ours.backend, name)
        data = _data(ours, reference, name, same, common, labels, statistics)
        gates = run_gates(data, limits, draws=statistics.draws, seed=statistics.seed)
        note = "Scores of the public scorer, from files, one image a call."
        gates = msgspec.structs.replace(gates, notes=[*gates.notes, note])
        heads.append(HeadAgreement(head=name, kind=kind, gates=gates))
    report = Agreement(
        against="reference",
        reference=ReferenceRef(
            name=other.manifest.name,
            sha256=other.hash,
            backend=reference.backend,
            refused=RefusedImage.each(reference.scored.refused),
        ),
        heads=heads,
        not_compared=missing,
    )
    return report, _part(report, len(common), len(ours.scored.answers) - len(common))


def _part(report: Agreement, images: int, left_out: int) -> Part:
    """Return the verdict on so many images that both scored, and so many that the reference alone refused."""
    verdicts: list[Verdict] = [each.gates.verdict for each in report.heads]
    if report.not_compared or left_out or not images:
        verdicts.append("inconclusive")
    reasons = [line for each in report.heads for line in unpassed(each.gates, each.head)]
    if report.not_compared:
        reasons.append(
            f"not compared, for the reference does not score them alike: {', '.join(report.not_compared)} "
            "(`promptray prompts REFERENCE add` adds a finding)"
        )
    if left_out:
        reasons.append(f"{left_out} images that were scored are not compared, for the reference refused them")
    if not images:
        reasons.append("no image was scored by both")
    held = sum(len(each.gates.gates) for each in report.heads)
    said = f"{held} gates on {images} images against the fp32 original"
    return Part(name="agreement", verdict=overall(verdicts), reason="; ".join(reasons) or said)


def _same_wordings(ours: Sequence[Finding], theirs: Sequence[Finding]) -> list[str]:
    """Return the keys that mean the same on both sides."""
    wordings = {each.key: (each.prompts, each.negative_prompts) for each in theirs}
    return [each.key for each in ours if wordings.get(each.key) == (each.prompts, each.negative_prompts)]


def _data(
    ours: Side,
    reference: Side,
    head: str,
    keys: Sequence[str],
    images: Sequence[int],
    labels: Labels | None,
    statistics: Statistics,
) -> GateData:
    backend = ours.backend
    hashes = [ours.scored.pictures[place] for place in images]
    clustered = labels is not None and labels.clustered
    patients = labels.patients[list(images)] if labels is not None and clustered else None
    thresholds = ours.thresholds[head]
    return GateData(
        findings=tuple(keys),
        original=_model("the fp32 original", reference, head, keys, images),
        candidate=_model(
            f"{ours.bundle.manifest.name} ({backend.name}, {backend.precision})",
            ours,
            head,
            keys,
            images,
        ),
        labels=_labels(labels, keys, images, statistics.uncertain),
        patients=united_patients(patients, hashes),
        patients_known=clustered,
        thresholds={key: thresholds[key] for key in keys if key in thresholds},
        image_numbers=tuple(labels.images[place].line if labels else place + 1 for place in images),
    )


def _model(name: str, side: Side, head: str, keys: Sequence[str], images: Sequence[int]) -> ModelScores:
    columns = [side.scored.keys[head].index(key) for key in keys]
    answers = [side.scored.answers[place][head] for place in images]
    maps = [each.maps[columns] for each in answers if each.maps is not None]
    return ModelScores(
        name,
        np.stack([each.logits[columns] for each in answers]),
        np.stack(maps) if maps else None,
        side.bundle.hash,
    )


def _labels(
    labels: Labels | None, keys: Sequence[str], images: Sequence[int], uncertain: Uncertain
) -> NDArray[np.float64] | None:
    """Return labels float64 (images, findings), NaN where unknown; None where no finding has a column."""
    if labels is None or not set(keys) & set(labels.keys):
        return None
    counted, present = known(labels.values[list(images)], uncertain)
    own = np.where(counted, present.astype(float), np.nan)
    unknown = np.full(len(images), np.nan)
    columns = dict(zip(labels.keys, own.T, strict=True))
    return np.stack([columns.get(key, unknown) for key in keys], axis=1)
