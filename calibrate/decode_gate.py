"""The gates of docs/gates.md on JPEG 2000 films of a site, decoded at a lower resolution and whole."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
from numpy.typing import NDArray

from promptray.calibrate.gates import LIMITS, run_gates
from promptray.calibrate.gates.on_images import ImagesHeld, score_pictures
from promptray.calibrate.gates.report import GateReport, sealed
from promptray.calibrate.image_set import ImageSet, Progress
from promptray.runtime.bundle import Bundle
from promptray.runtime.decode_gate import (
    KIND,
    LIMITS_OF,
    DecodeGate,
    DecodeScope,
    enough_patients,
    pack_reports,
    write_gate,
)
from promptray.runtime.errors import BuildError, ImageError, PromptRayError
from promptray.runtime.graphs import own_bank
from promptray.runtime.opened_parts import Parts, open_parts
from promptray.runtime.reduction import halvings
from promptray.runtime.site import Site
from promptray.runtime.site_choice import SiteChoice, open_site

_REFUSED = (
    "score without reduced_decode: films of yours get other scores with it. Whatever an earlier run "
    "stored for it was taken back"
)
_INCONCLUSIVE = "give more films in JPEG 2000, of more patients"
#: Called with the reports of the gates, by head, passed or not.
Reported = Callable[[Mapping[str, GateReport]], None]


@dataclass(frozen=True)
class Outcome:
    """A gate that was passed and stored, with its reports by head."""

    gate: DecodeGate
    reports: Mapping[str, GateReport]


def gate_decode(
    path: Path,
    site: SiteChoice,
    read_images: Callable[[Bundle], ImageSet],
    *,
    backend: str = "auto",
    threads: int | None = None,
    progress: Progress,
    reported: Reported = lambda reports: None,
) -> Outcome:
    """Score films whole and at a lower resolution with a bundle here, hold the gates, and store a pass.

    Parameters
    ----------
    path : Path
        The bundle.
    site : path or USER_SITE
    read_images : callable
        Returns the images of the site.
    backend, threads
        As for ``Scorer.open``; the gate holds for what this chooses.
    progress : callable
        Called with (stage, message, fraction).
    reported : callable, optional

    Raises
    ------
    BuildError
        ``gate.images`` where no image is decoded at a lower resolution; ``gate.inconclusive``;
        ``gate.failed``, which also takes back what was stored before.
    PromptRayError
        What opening raises; ``site.*``.
    """
    bundle = Bundle.open(path)
    local = open_site(site, bundle.hash)
    if local is None:
        raise ValueError("without a site there is nowhere to store a gate")
    local.require_writable()
    parts = open_parts(path, backend=backend, site=site, threads=threads, reduced_decode=True, measured=True)
    try:
        scope = DecodeScope.here(parts.backend)
        return _gated(parts, read_images(bundle), local, scope, progress, reported)
    except BuildError as error:
        if error.code == "gate.failed":
            _take_back(local, scope.key, error)
        raise
    finally:
        parts.graphs.close()


def _take_back(local: Site, key: str, refusal: BuildError) -> None:
    """Remove an earlier pass; where that fails, the refusal says so."""
    try:
        if any(each.key == key for each in local.reopened().entries(KIND)):
            local.remove(KIND, "", key)
    except PromptRayError as error:
        raise BuildError(
            refusal.code,
            f"{refusal.message}; an earlier pass could not be taken back: {error.message}",
            artefact=refusal.artefact,
            expected=refusal.expected,
            found=refusal.found,
            cure=f"`promptray gate-decode BUNDLE --remove {key}`, and score without reduced_decode",
        ) from error


def _gated(
    parts: Parts,
    images: ImageSet,
    local: Site,
    scope: DecodeScope,
    progress: Progress,
    reported: Reported,
) -> Outcome:
    held, reduced, halved = _reduced(images, progress)
    reports = _reports(parts, held, reduced, progress)
    reported(reports)
    gate = held.passed(reports, refused=_REFUSED, inconclusive=_INCONCLUSIVE)
    payload = pack_reports({name: sealed(each) for name, each in reports.items()})
    gate = msgspec.structs.replace(gate, report=hashlib.sha256(payload).hexdigest())
    found = DecodeGate(
        scope=scope, gate=gate, halvings=_most_halvings(images, held, halved),
        whole=len(images.rows) - len(held.places), date=date.today().isoformat(),
    )  # fmt: skip
    write_gate(local, found, payload)
    return Outcome(found, reports)


def _most_halvings(images: ImageSet, held: ImagesHeld, halved: Sequence[int]) -> int:
    """Return how often films of enough patients were halved: what was seen of few films proves nothing."""
    patients = images.patients[held.places]

    def patients_of(times: int) -> int:
        return len({patient for patient, found in zip(patients, halved, strict=True) if found >= times})

    return max(times for times in set(halved) if enough_patients(patients_of(times)))


def _reduced(images: ImageSet, progress: Progress) -> tuple[ImagesHeld, list[NDArray[Any]], list[int]]:
    """Decode every image no finer than needed, whatever an earlier gate allows.

    Return those that this changes, with their pictures and how often each was halved.
    """
    found, refused, many = {}, {}, len(images.rows)
    as_needed = partial(halvings, images.preprocessing)
    for place, row in enumerate(images.rows):
        progress("decode", f"{place} of {many} images at a lower resolution", place / many)
        try:
            made = images.reduced(row, as_needed)
        except ImageError as error:
            refused[images.numbers[place]] = error.code
            continue
        if made is not None:
            found[place] = made
    if refused:
        raise BuildError(
            "gate.failed",
            "images that can be scored are refused at a lower resolution; nothing was stored",
            artefact=images.source,
            expected="every image read both ways",
            found=", ".join(f"image {number}: {code}" for number, code in refused.items()),
            cure=_REFUSED,
        )
    if not found:
        raise BuildError(
            "gate.images",
            "no image is decoded at a lower resolution, so there is nothing to hold a gate on",
            artefact=images.source,
            expected="JPEG 2000 films with at least four times the rows and columns of the bundle's resize",
            found=f"{many} images that are decoded whole all the same",
            cure="give films as the site's machines send them (docs/decoding.md says which are reduced)",
        )
    pictures, halved = zip(*found.values(), strict=True)
    return ImagesHeld(images, list(found)), list(pictures), list(halved)


def _reports(
    parts: Parts, held: ImagesHeld, reduced: Sequence[NDArray[Any]], progress: Progress
) -> dict[str, GateReport]:
    """Score both and hold the gates of every head."""
    bundle, graphs = parts.bundle, parts.graphs
    manifest = bundle.manifest
    heads = graphs.bind_all({head.name: own_bank(bundle, head) for head in manifest.heads})
    first = score_pictures(graphs, heads, held.pictures, held, progress, "decoded whole")
    second = score_pictures(
        graphs, heads, lambda part: reduced[part], held, progress, "at a lower resolution"
    )
    progress("images", "drawing intervals", 0.95)
    whole = len(held.images.rows) - len(held.places)
    notes = [*held.notes, f"{whole} other images are decoded whole all the same: they do not count."]
    reports = {}
    for head in manifest.heads:
        data = held.data(
            manifest,
            head,
            ("the same films decoded whole", bundle.hash, first),
            ("JPEG 2000 at a lower resolution", bundle.hash, second),
        )
        report = run_gates(data, LIMITS[LIMITS_OF])
        reports[head.name] = msgspec.structs.replace(report, notes=[*report.notes, *notes])
    return reports
