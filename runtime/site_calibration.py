"""Calibrations in a site directory: stored with all that they rest on, applied only where that still holds.

Section 8 of ``docs/bundle-format.md`` is the format. A calibration turns the logits of one finding, as one
bundle scored it here, into probabilities. Another wording, another backend or precision, or another door
gives other logits, so there it is not applied, and a notice says so. One that is damaged, or of another
bundle, is an error.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from promptray.runtime.backends import BackendFacts
from promptray.runtime.bundle.fields import HeadName, Sha256, Text
from promptray.runtime.bundle.manifest import ALTERNATIVES, Manifest
from promptray.runtime.bundle.parse import strict_json
from promptray.runtime.bundle.words import quoted
from promptray.runtime.calibration import Calibration
from promptray.runtime.errors import BundleError, PromptRayError
from promptray.runtime.operating_point import OperatingPoint
from promptray.runtime.picture import Notice, notice
from promptray.runtime.result import CalibrationRef, Score
from promptray.runtime.site import Site, SiteEntry
from promptray.runtime.site_files import ENTRIES, corrupt
from promptray.runtime.site_prompts import ActiveFinding


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the structures: immutable, keyword-only, closed."""


class Basis(_Struct, frozen=True):
    """What gave the logits of the labelled images."""

    entry: Sha256
    """Fingerprint of the finding's entry in the bank: its wordings and tensors."""
    backend: Text
    precision: Text
    gated_as: Text | None
    """What the changed graphs were gated as, with the class of machine; None where no graph was changed."""
    strict: bool
    """Whether images with absent tags were refused; otherwise they were scored with a notice."""
    labels: Sha256
    """Of the table of labels."""
    notices: dict[Text, Annotated[int, Meta(ge=1)]]
    """How many of the images came with each notice, by its code."""


class CalibrationFile(_Struct, frozen=True, kw_only=True):
    """The payload of an entry of kind ``calibration``."""

    format: Literal["promptray-calibration"] = "promptray-calibration"
    format_version: Literal[1] = 1
    head: HeadName
    basis: Basis
    calibration: Calibration
    operating_point: OperatingPoint | None


@dataclass(frozen=True, eq=False)
class SiteCalibration:
    """A stored calibration under its id, the sha256 of its document."""

    id: str
    content: CalibrationFile

    @property
    def finding(self) -> str:
        """Key of its finding."""
        return self.content.calibration.finding

    @property
    def point(self) -> OperatingPoint | None:
        """The decision threshold, where one was chosen."""
        return self.content.operating_point

    @property
    def ref(self) -> CalibrationRef:
        """What a result says of it."""
        made, point = self.content.calibration, self.point
        return CalibrationRef(
            id=self.id, source="site", method=made.method, images=made.images, patients=made.patients,
            prevalence=made.prevalence, date=made.date,
            rule=None if point is None else point.rule, target=None if point is None else point.target,
        )  # fmt: skip

    def applied(self, score: Score) -> Score:
        """Return a score of its finding with probability, threshold and flag.

        Raises
        ------
        ScoringError
            ``score.not-finite``.
        """
        threshold = None if self.point is None else self.point.threshold
        return msgspec.structs.replace(
            score,
            probability=float(self.content.calibration.apply(score.logit)),
            threshold=threshold,
            flag=None if threshold is None else score.logit >= threshold,
            calibration=self.ref,
        )

    def unfit(self, item: ActiveFinding, backend: BackendFacts, *, strict: bool) -> str | None:
        """Return the code of the notice that says why it does not hold for a finding as it is scored now."""
        basis = self.content.basis
        if basis.entry != item.entry.fingerprint:
            return "calibration-wording"
        if (basis.backend, basis.precision) != (backend.name, backend.precision):
            return "calibration-engine"
        if basis.gated_as != backend.gated_as:
            return "calibration-machine"
        if basis.strict and not strict:
            return "calibration-strict"
        return None


class Calibrations:
    """The calibrations of a site in one state of it, for scores of one backend: read and checked.

    Parameters
    ----------
    site : Site or None
    manifest : Manifest
    backend : BackendFacts
    strict : bool
        Of the scorer.

    Raises
    ------
    BundleError
        As `site_calibrations`.
    """

    def __init__(self, site: Site | None, manifest: Manifest, backend: BackendFacts, *, strict: bool) -> None:
        self.site = site
        self._manifest = manifest
        self._backend = backend
        self._strict = strict
        self._stored = {} if site is None else site_calibrations(site, manifest)

    @property
    def outdated(self) -> bool:
        """Whether somebody else wrote to the site since these were read."""
        return self.site is not None and self.site.outdated

    def read_again(self, attempts: int = 5) -> Calibrations:
        """Return those that the site has now; a writer may take one away just before it is read.

        Raises
        ------
        BundleError
            As `site_calibrations`; ``site.not-found`` where the site is no longer there.
        """
        site = None if self.site is None else self.site.reopened()
        try:
            return Calibrations(site, self._manifest, self._backend, strict=self._strict)
        except BundleError as error:
            if error.code == "site.changed" and attempts > 1:
                return self.read_again(attempts - 1)
            raise

    def of(
        self, active: Iterable[ActiveFinding]
    ) -> tuple[dict[tuple[str, str], SiteCalibration], list[Notice]]:
        """Return those that hold for these findings, and notices of those that do not any more."""
        valid: dict[tuple[str, str], SiteCalibration] = {}
        unused: dict[str, list[str]] = {}
        for item in active if self._stored else ():
            name = (item.finding.head, item.finding.key)
            found = self._stored.get(name)
            if found is None:
                continue
            code = found.unfit(item, self._backend, strict=self._strict)
            if code is None:
                valid[name] = found
            else:
                unused.setdefault(code, []).append(item.finding.key)
        return valid, [
            Notice(code, f"{notice(code).message} It was not applied. Findings: {', '.join(keys)}.")
            for code, keys in unused.items()
        ]


def site_calibrations(site: Site, manifest: Manifest) -> dict[tuple[str, str], SiteCalibration]:
    """Read and check every calibration of a site, by head and finding.

    Raises
    ------
    BundleError
        ``site.corrupt`` for one that is damaged, of another bundle or finding, of a head that is not there,
        or of alternatives; ``site.changed``.
    """
    return {(entry.head, entry.key): _read(entry, site, manifest) for entry in site.entries("calibration")}


def keep_calibrations(site: Site, head: str, made: Iterable[CalibrationFile]) -> list[SiteEntry]:
    """Store calibrations of a head's findings, all or none; they take the place of earlier ones.

    Raises
    ------
    BundleError
        ``site.*``.
    """
    payloads = [(each.calibration.finding, msgspec.json.format(msgspec.json.encode(each))) for each in made]
    for _, payload in payloads:  # a struct built in code is not checked until it is read back
        _parse(payload)
    return site.add_all("calibration", head, [(key, raw, {}) for key, raw in payloads], replace=True)


def facts(stored: SiteCalibration) -> dict[str, Any]:
    """Return a stored calibration as plain containers: its document under its id."""
    return {"id": stored.id, **msgspec.to_builtins(stored.content)}


def _parse(payload: bytes) -> CalibrationFile:
    return msgspec.convert(strict_json(payload), CalibrationFile)


def _read(entry: SiteEntry, site: Site, manifest: Manifest) -> SiteCalibration:
    payload = site.read(entry)
    assert entry.payload is not None  # noqa: S101 - the index was checked for it
    try:
        content = _parse(payload)
    except ValueError as error:  # msgspec.ValidationError is one
        raise _refused(entry, site, f"a calibration breaks its schema: {error}") from error
    point, made = content.operating_point, content.calibration
    expected = (entry.head, entry.key, site.folder.name)
    stated = [(content.head, made.finding, made.bundle)]
    stated += [] if point is None else [(content.head, point.finding, point.bundle)]
    if any(each != expected for each in stated):
        raise _refused(entry, site, "a calibration is of another head, finding or bundle than its place says")
    head = manifest.head(entry.head)
    if head is None:
        raise _refused(entry, site, "a calibration is of a head that the bundle does not have")
    if head.relation in ALTERNATIVES:
        raise _refused(entry, site, "a calibration is of one of several alternatives")
    return SiteCalibration(entry.payload.sha256, content)


def _refused(entry: SiteEntry, site: Site, message: str) -> PromptRayError:
    error: BundleError = corrupt(
        message,
        site.folder / ENTRIES / (entry.payload.sha256 if entry.payload else ""),
        found=f"{entry.head}: {entry.key!r}",
        cure=f"`promptray calibrate BUNDLE --remove {quoted(entry.key)} --head {entry.head}`, "
        "then calibrate it again",
    )
    return error
