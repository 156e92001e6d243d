"""The whole of ``promptray accept``: every part, one after the other, and the verdict."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime
from importlib import metadata
from pathlib import Path
from typing import Literal, get_args

from promptray.calibrate.accept.agreement import Side, Statistics, hold_reference, without_reference
from promptray.calibrate.accept.images import images_report, score_all
from promptray.calibrate.accept.latency import hold_latency
from promptray.calibrate.accept.reference import require_another, require_original
from promptray.calibrate.accept.report import (
    PARTS,
    AcceptanceReport,
    Agreement,
    BundleIdentity,
    EntryRef,
    Images,
    Integrity,
    Parameters,
    Part,
    PartName,
    SiteState,
)
from promptray.calibrate.bench.machine import Watch
from promptray.calibrate.bench.opening import Opening
from promptray.calibrate.bench.report import BenchReport
from promptray.calibrate.bench.run import Settings
from promptray.calibrate.tables.image_folder import ImageFolder
from promptray.calibrate.tables.labels import LabelledImage, Labels
from promptray.runtime.backends import HOST, BackendFacts
from promptray.runtime.bundle import Bundle
from promptray.runtime.errors import BundleError, PromptRayError
from promptray.runtime.golden import GoldenReport
from promptray.runtime.site_choice import USER_SITE, open_site
from promptray.runtime.site_files import Kind as EntryKind
from promptray.runtime.verify import VerifyReport, verify
from promptray.runtime.version import VERSION

Progress = Callable[[str, str, float], None]
_DISTRIBUTION = "promptray"


@dataclass(frozen=True)
class Asked:
    """What is to be accepted, and by what.

    Attributes
    ----------
    opening : Opening
        The bundle, and how it is opened.
    reference : Path or None
        Its fp32 original.
    folder : ImageFolder
    read_labels : callable or None
        From the keys of the findings that are scored to their labels, located in the folder.
    modality : str or None
        Of images that state none.
    sla : str
        The conditions as they were given; read, they are in `bench`.
    bench : Settings
    statistics : Statistics
    refused_at_most : float
        Share of the images that the door may refuse.
    """

    opening: Opening
    reference: Path | None
    folder: ImageFolder
    read_labels: Callable[[Collection[str]], Labels] | None
    modality: str | None
    sla: str
    bench: Settings
    statistics: Statistics
    refused_at_most: float = 0.0


@dataclass
class _Run:
    """An acceptance under way: what was found so far, and the verdicts of its parts."""

    asked: Asked
    bundle: Bundle
    progress: Progress
    parts: dict[PartName, Part]
    site: SiteState | None = None
    verified: VerifyReport | None = None
    backend: BackendFacts | None = None
    labels: Labels | None = None
    images: Images | None = None
    agreement: Agreement | None = None
    latency: BenchReport | None = None

    def say(self, part: Part) -> None:
        """Take down the verdict of a part."""
        self.parts[part.name] = part


def accept(
    asked: Asked, *, now: Callable[[], datetime] = datetime.now, progress: Progress
) -> AcceptanceReport:
    """Hold a bundle against everything that can be held on this machine.

    A bundle whose seal is broken has no identity, so there is nothing to report on: it is refused. One whose
    files, golden answers or site entries are wrong gets a report that says so, and no more of it is run.

    Parameters
    ----------
    asked : Asked
    now : callable
        Returns the local time.
    progress : callable

    Raises
    ------
    PromptRayError
        ``bundle.*`` of what is no bundle; ``accept.reference``; ``bench.images`` for no image; ``table.*``;
        ``site.changed`` and ``bundle.seal`` where site or bundle were changed meanwhile; what opening and
        scoring raise.
    """
    watch, bundle = Watch(), Bundle.open(asked.opening.bundle)
    original = None if asked.reference is None else Bundle.open(asked.reference)
    if original is not None:
        require_original(bundle, original)
    run = _Run(asked, bundle, progress, {})
    if _verify(run):
        images, backend = _open(run)
        if original is not None:
            require_another(bundle, original, backend)
        # First, for the greatest memory of the process is measured, and agreement takes more of it.
        run.latency, part = hold_latency(
            asked.opening, images, asked.folder, asked.modality, asked.bench, progress
        )
        watch.look()
        run.say(part)
        _score(run, images)
        _require_unchanged(run)
    return _report(run, watch, now().astimezone())


def _verify(run: _Run) -> bool:
    """Hold hashes, schema, site and golden answers; return whether all are right."""
    opening = run.asked.opening
    try:
        run.verified = verify(
            opening.bundle, site=opening.site, backend=opening.backend, threads=opening.threads,
            prepare=opening.prepare, progress=run.progress,
        )  # fmt: skip
        run.site = _site(run)
    except BundleError as error:
        if error.code.endswith(".not-found"):  # a path that is wrong, and no bundle or site that is
            raise
        golden = error.code == "bundle.golden"
        if golden:
            run.site = _site(run)
            run.say(Part(name="integrity", verdict="passed", reason="every hash and the schema"))
        name: PartName = "golden" if golden else "integrity"
        run.say(Part(name=name, verdict="refused", reason=_reason(error)))
        return False
    found = run.verified
    reason = f"{found.files} files and {found.site_entries} site entries match their hashes; the schema holds"
    run.say(Part(name="integrity", verdict="passed", reason=reason))
    heads = "; ".join(
        f"{head.head} off by {head.score_error:.2g} (bound {head.score_tolerance:.2g})"
        for head in found.golden.heads
    )
    reason = f"{found.golden.pictures} golden pictures, from file to score: {heads}"
    run.say(Part(name="golden", verdict="passed", reason=reason))
    return True


def _reason(error: BundleError) -> str:
    """Say what is wrong, without paths of this machine, which errors of a site name."""
    file = error.artefact if error.code.startswith("bundle.") else None
    parts = (error.message, file, error.found and f"found {error.found}")
    return f"[{error.code}] {'; '.join(part for part in parts if part)}"


def _site(run: _Run) -> SiteState | None:
    local = open_site(run.asked.opening.site, run.bundle.hash)
    if local is None:
        return None
    entries = [
        EntryRef(
            kind=entry.kind,
            head=entry.head,
            key=entry.key,
            sha256=entry.payload.sha256 if entry.payload else None,
        )
        for kind in get_args(EntryKind)
        for entry in local.entries(kind)
    ]
    return SiteState(revision=local.revision, entries=entries)


def _open(run: _Run) -> tuple[list[LabelledImage], BackendFacts]:
    """Open the bundle for what it says of itself, and return the images: of the labels, else all files."""
    folder, read_labels = run.asked.folder, run.asked.read_labels
    images = [LabelledImage(name, number, counted="file") for number, name in enumerate(folder.files, 1)]
    with run.asked.opening.scorer() as scorer:
        run.backend = backend = scorer.backend
        if read_labels is not None:
            run.labels = read_labels({finding.key for finding in scorer.prompts})
            images = run.labels.images
    if not any(image.file in folder.files for image in images):
        raise PromptRayError(
            "bench.images",
            "there is no image to accept the bundle on",
            found=f"{len(folder.files)} files in the folder, {len(images)} images asked for",
            cure="correct --images, or the table of labels",
        )
    return images, backend


def _require_unchanged(run: _Run) -> None:
    """Refuse to report on parts that were held on different states of the bundle or the site."""
    if Bundle.open(run.asked.opening.bundle).hash != run.bundle.hash:
        changed, code = "the bundle was replaced", "bundle.seal"
    elif _site(run) != run.site:
        changed, code = "the site directory was changed", "site.changed"
    else:
        return
    raise BundleError(
        code,
        f"{changed} while it was being accepted: no report was written",
        artefact=f"{run.bundle.manifest.name} {run.bundle.short_hash}",
        cure="run `promptray accept` again, and let nobody change it meanwhile",
    )


def _score(run: _Run, images: list[LabelledImage]) -> None:
    """Score the images, with the reference as well where there is one, and hold door and agreement."""
    asked = run.asked

    def side(opening: Opening) -> Side:
        with opening.scorer() as scorer:
            answers = asked.reference is not None
            scored = score_all(scorer, images, asked.folder, asked.modality, run.progress, answers=answers)
            return Side.of(scorer, scored)

    ours = side(asked.opening)
    run.images, part = images_report(images, asked.folder, ours.scored, asked.refused_at_most)
    run.say(part)
    if asked.reference is None:
        run.agreement, part = without_reference(ours.backend)
        run.say(part)
    elif ours.scored.pictures:
        plain = replace(asked.opening, backend=HOST, prepare="cpu", reduced_decode=False, reproducible=False)
        reference = side(replace(plain, bundle=asked.reference))
        run.progress("agreement", "drawing intervals", 1.0)
        run.agreement, part = hold_reference(ours, reference, run.labels, asked.statistics)
        run.say(part)


def _report(run: _Run, watch: Watch, created: datetime) -> AcceptanceReport:
    manifest = run.bundle.manifest
    parts = [
        run.parts.get(name) or Part(name=name, verdict="not run", reason="a part before it was refused")
        for name in PARTS
    ]
    return AcceptanceReport(
        schema="promptray-acceptance",
        schema_version=1,
        software=f"promptray {VERSION}",
        versions=versions(),
        created=created.isoformat(timespec="seconds"),
        time_zone=created.tzname() or "not known",
        verdict="accepted" if all(part.verdict == "passed" for part in parts) else "not accepted",
        parts=parts,
        bundle=BundleIdentity(
            name=manifest.name,
            family=manifest.family,
            sha256=run.bundle.hash,
            model=manifest.model,
            provenance=manifest.provenance,
        ),
        site=run.site,
        backend=run.backend,
        machine=watch.end(),
        integrity=_integrity(run.verified),
        golden=_golden(run.verified),
        images=run.images,
        agreement=run.agreement,
        latency=run.latency,
        parameters=_parameters(run),
    )


def _integrity(found: VerifyReport | None) -> Integrity | None:
    return None if found is None else Integrity(files=found.files, site_entries=found.site_entries)


def _golden(found: VerifyReport | None) -> GoldenReport | None:
    return None if found is None else found.golden


def _parameters(run: _Run) -> Parameters:
    asked, opening = run.asked, run.asked.opening
    site: Literal["user's", "given", "none"] = "given"
    if opening.site is None or opening.site is USER_SITE:
        site = "none" if opening.site is None else "user's"
    return Parameters(
        sla=asked.sla,
        budget_seconds=asked.bench.budget,
        refused_at_most=asked.refused_at_most,
        reference=asked.reference is not None,
        labels_sha256=run.labels.sha256 if run.labels else None,
        modality=asked.modality,
        strict=opening.strict,
        backend=opening.backend,
        threads=opening.threads,
        prepare=opening.prepare,
        reduced_decode=opening.reduced_decode,
        reproducible=opening.reproducible,
        site=site,
        uncertain=asked.statistics.uncertain,
        draws=asked.statistics.draws,
        seed=asked.statistics.seed,
    )


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages of the edge install, by their names."""
    names = [
        match[0]
        for requirement in metadata.requires(_DISTRIBUTION) or []
        if "extra ==" not in requirement and (match := re.match(r"[\w.-]+", requirement))
    ]
    found = {"python": platform.python_version()}
    for name in sorted(set(names), key=str.lower):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # of another system or Python
            continue
    return found
