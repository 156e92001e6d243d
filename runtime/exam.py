"""Score an examination: several images of one patient, pooled by the rule that the bundle stores.

Nothing is scored before it is settled that the images belong together and which views they show.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from promptray.runtime.bundle.manifest import Examination, Manifest
from promptray.runtime.door import Source, require_several, source_name
from promptray.runtime.errors import ImageError, ScoringError
from promptray.runtime.exam_document import Entered, exam_result
from promptray.runtime.exam_result import LEFT_OUT, ExamResult, LeftOutImage
from promptray.runtime.exam_rule import views_of
from promptray.runtime.exam_views import assign, declared_view
from promptray.runtime.prepared import Prepared
from promptray.runtime.views import View

if TYPE_CHECKING:
    from promptray.runtime.scorer import Scorer


@dataclass(frozen=True, eq=False)
class _Arrival:
    """An image that passed the door."""

    number: int
    prepared: Prepared

    @property
    def name(self) -> str:
        """What errors call it: its number, too, for bytes and arrays are all named alike."""
        return f"image {self.number}, {self.prepared.name}"


def score_exam(
    scorer: Scorer,
    sources: Iterable[Source],
    views: Sequence[str | None] | None,
    *,
    strict: bool,
    declared: Mapping[str, Any],
) -> ExamResult:
    """Score the images of one examination (see :meth:`promptray.runtime.scorer.Scorer.score_exam`)."""
    require_several(sources)
    rule, given = _rule(scorer.bundle.manifest), list(sources)
    labels = [None] * len(given) if views is None else list(views)
    if len(labels) != len(given):
        raise ValueError("views= names a view, or None, for each source")
    words = [None if label is None else declared_view(label, rule) for label in labels]
    arrivals, left_out = _through_the_door(scorer, given, words, declared)
    _require_one_study(arrivals, strict=strict)
    entering = []
    for arrival in arrivals:
        image = arrival.prepared
        found = assign(image.source, words[arrival.number - 1], rule, image.name)
        if found.view is None:
            left_out.append(_left_out(arrival.number, image.name, found.label, found.code))
        else:
            entering.append((arrival, found.view, found.declared))
    _require_distinct([(arrival, view) for arrival, view, _ in entering])
    left_out.sort(key=lambda each: each.number)
    there = {view for _, view, _ in entering}
    _require_complete(rule, [view for view in views_of(rule) if view not in there], left_out)
    entered = [
        Entered(arrival.number, view, declared=spoken, result=scorer.infer(arrival.prepared))
        for arrival, view, spoken in entering
    ]
    return exam_result(scorer.bundle.manifest, rule, entered, left_out)


def _rule(manifest: Manifest) -> Examination:
    if manifest.examination is None:
        raise ScoringError(
            "exam.no-rule",
            "the bundle stores no rule by which images of an examination are pooled",
            artefact=manifest.name,
            cure="build it with the recipe key `examination` (docs/examinations.md), or score single images",
        )
    return manifest.examination


def _through_the_door(
    scorer: Scorer, sources: Sequence[Source], words: Sequence[View | None], declared: Mapping[str, Any]
) -> tuple[list[_Arrival], list[LeftOutImage]]:
    """Bring every image to the network's input; one that the door refuses is left out with its reason."""
    arrivals, refused = [], []
    for number, (source, word) in enumerate(zip(sources, words, strict=True), start=1):
        try:
            arrivals.append(_Arrival(number, scorer.prepare(source, **declared)))
        except ImageError as error:
            refused.append(
                LeftOutImage(
                    number=number, name=source_name(source), view=word.label if word else None,
                    refused=True, code=error.code, message=error.message,
                )
            )  # fmt: skip
    return arrivals, refused


def _left_out(number: int, name: str, view: str | None, code: str | None) -> LeftOutImage:
    code = code or "view-unknown"
    return LeftOutImage(number=number, name=name, view=view, refused=False, code=code, message=LEFT_OUT[code])


def _require_one_study(images: Sequence[_Arrival], *, strict: bool) -> None:
    """Refuse images of several studies; a study is of one patient (PS3.3 A.1.2), so of several patients too.

    Patient's names and IDs are never read, so a study's UID is all that tells patients apart.
    """
    studies: dict[str, str] = {}
    instances: dict[tuple[str, int | None], str] = {}
    for image in images:
        facts = image.prepared.source
        if facts.study_instance_uid is not None:
            studies.setdefault(facts.study_instance_uid, image.name)
        elif strict and facts.kind == "dicom":
            raise ImageError(
                "image.tag-missing",
                "the image states no study, so nothing shows that it belongs to the others",
                artefact=image.name,
                expected="Study Instance UID (0020,000D)",
                cure="complete the header, or score without strict",
            )
        if facts.sop_instance_uid is not None:
            instance = (facts.sop_instance_uid, facts.frame)
            if instance in instances:
                names = f"{instances[instance]} and {image.name}"
                raise _mixed("one image was given twice", names, "give every image once")
            instances[instance] = image.name
    if len(studies) > 1:
        names = " and ".join(list(studies.values())[:2])
        raise _mixed("the images are of different studies", names, "give the images of one study")


def _require_distinct(entering: Sequence[tuple[_Arrival, View]]) -> None:
    """Refuse one picture under two names: it would count twice, and for a view or a side it does not show."""
    seen: dict[bytes, str] = {}
    for image, view in entering:
        shown = image.prepared.network_input
        digest = hashlib.sha256(shown.picture.tobytes() + repr(shown.geometry).encode()).digest()
        name = f"{image.name} ({view.label})"
        if digest in seen:
            raise _mixed(
                "one picture was given twice: the network sees no difference",
                f"{seen[digest]} and {name}",
                "give every image once; look up which file shows which view",
            )
        seen[digest] = name


def _mixed(message: str, names: str, cure: str) -> ImageError:
    return ImageError(
        "exam.mixed", message, artefact=names, expected="the images of one study, each once", cure=cure
    )


def _require_complete(rule: Examination, missing: Sequence[View], left_out: Sequence[LeftOutImage]) -> None:
    """Refuse an examination without any view, or without one of those that the rule needs."""
    if not missing or (len(missing) < len(rule.views) and not rule.require_all):
        return
    lacking = ", ".join(view.label for view in missing)
    outside = ", ".join(f"image {image.number}, {image.name} [{image.code}]" for image in left_out[:8])
    raise ImageError(
        "exam.incomplete",
        "views are missing without which the examination has no score",
        expected="every view" if rule.require_all else f"one of {', '.join(rule.views)} at least",
        found=f"no {lacking}" + (f"; left out: {outside}" if outside else ""),
        cure="give the missing views; declare the view of an image whose tags state none",
    )
