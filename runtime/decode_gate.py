"""The gate that `reduced_decode` passed on films of a site, as `promptray gate-decode` stored it.

It is an entry of the site directory (``docs/bundle-format.md``, section 8), with the gates' reports as its
payload. It holds for one bundle, for what scores, and for the decoder. The index is hashed but not signed, so
an edited entry is read like any other: its reports are held against this software's own bounds again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from promptray.runtime.backend_facts import gated_consumer
from promptray.runtime.backends import OF_THE_HOST, BackendFacts, DecodeRef
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.fields import Text
from promptray.runtime.bundle.parse import strict_json
from promptray.runtime.bundle.words import quoted
from promptray.runtime.engines.facts import ImagesGate
from promptray.runtime.errors import BundleError, ScoringError
from promptray.runtime.gate_limits import CONFIDENCE, LIMITS, Kind
from promptray.runtime.gate_report import StatedModel, StatedReport, gate_faults
from promptray.runtime.machine_class import machine_class
from promptray.runtime.reduction import MOST_HALVINGS
from promptray.runtime.site import Site
from promptray.runtime.site_files import SiteEntry, corrupt

KIND: Literal["decode"] = "decode"
#: Whose bounds count: the strictest, since no number of the model was made narrower.
LIMITS_OF: Kind = "fp16"
#: Which pictures are halved, and how often. Other words for another rule: every gate is then held anew.
_WAY = "while twice the resize is left, and no more often than Pillow and the stream allow"


class DecodeScope(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a gate of decoding holds for, beside the bundle. Whatever changes a score changes it."""

    backend: Text
    precision: Text
    gated_as: Text
    """As in results, decoding aside: with the class of machine or the engines' key, where there is one."""
    decoder: Text
    way: Text

    @classmethod
    def here(cls, facts: BackendFacts) -> DecodeScope:
        """Return what scores here, with the decoder that is installed."""
        return cls(
            backend=facts.name, precision=facts.precision, gated_as=gated_consumer(facts) or facts.name,
            decoder=_decoder(), way=_WAY,
        )  # fmt: skip

    @property
    def key(self) -> str:
        """Name of its entry."""
        stated = json.dumps(msgspec.to_builtins(self), sort_keys=True)
        return f"{self.backend}-{hashlib.sha256(stated.encode()).hexdigest()[:32]}"


class DecodeGate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All of an entry's facts."""

    format_version: Literal[1] = 1
    scope: DecodeScope
    gate: ImagesGate
    """Of the films that are decoded at a lower resolution; no others count."""
    halvings: Annotated[int, Meta(ge=1, le=MOST_HALVINGS)]
    """How often films of enough patients were halved: no picture is halved more often."""
    whole: Annotated[int, Meta(ge=0)]
    """Images that were there and are decoded whole all the same."""
    date: Text

    @property
    def ref(self) -> DecodeRef:
        """What a result says of it."""
        return DecodeRef(self.scope.key, self.gate.title)

    @property
    def stale(self) -> str | None:
        """What of the decoder, or of the processor's class, is no longer as it was; None where all is."""
        here = {"decoder": _decoder(), "way": _WAY}
        backend, _, gated_on = self.scope.gated_as.partition("@")
        if gated_on and backend in OF_THE_HOST:
            here["gated_as"] = f"{backend}@{machine_class()}"
        return _changed({name: getattr(self.scope, name) for name in here}, here) or None

    @property
    def document(self) -> dict[str, Any]:
        """All of it as JSON values, with its key and why it does not hold with the decoder that is here."""
        stated: dict[str, Any] = msgspec.to_builtins(self)
        return {"key": self.scope.key, "gate_title": self.gate.title, "stale": self.stale, **stated}


def find_gate(site: Site | None, bundle: Bundle, facts: BackendFacts) -> DecodeGate | None:
    """Return the gate that was passed for what scores here; None: there is none.

    Parameters
    ----------
    site : Site or None
    bundle : Bundle
    facts : BackendFacts
        Of what scores, whole pictures or not.

    Raises
    ------
    BundleError
        ``site.corrupt`` for an entry that is none, or that says what no gate could.
    """
    if site is None:
        return None
    key = DecodeScope.here(facts).key
    return next((_checked(site, each, bundle) for each in site.entries(KIND) if each.key == key), None)


def require_gate(site: Site | None, bundle: Bundle, facts: BackendFacts) -> DecodeGate:
    """Return the gate that was passed for what scores here.

    Raises
    ------
    ScoringError
        ``decode.ungated``; ``decode.stale`` where it was passed for something else.
    BundleError
        ``site.corrupt``.
    """
    found = find_gate(site, bundle, facts)
    if found is not None:
        return found
    here, others = DecodeScope.here(facts), [] if site is None else list(_others(site))
    expected = f"a gate passed on {facts.name}, {facts.precision}, with {here.decoder}"
    # By name: "auto" of another day, or of a site that was tuned, may be another one.
    cure = f"`promptray gate-decode BUNDLE --images FILMS --backend {facts.name}` holds it on films of yours"
    if not others:
        raise ScoringError(
            "decode.ungated",
            "no gate has shown that films decoded at a lower resolution get the same scores",
            artefact=f"{bundle.manifest.name} {bundle.short_hash}",
            expected=expected,
            found="no site directory is used" if site is None else "none in the site directory",
            cure=cure if site else f"use a site directory (no --no-site): {cure}",
        )
    own = msgspec.to_builtins(here)
    changes = [_changed(msgspec.to_builtins(each.scope), own) for each in others]
    raise ScoringError(
        "decode.stale",
        "the gate on a lower resolution was passed with something else than what is here",
        artefact=f"{bundle.manifest.name} {bundle.short_hash}",
        expected=expected,
        found=min(reversed(changes), key=lambda each: each.count(";")),
        cure=cure,
    )


def read_gates(site: Site, bundle: Bundle) -> list[DecodeGate]:
    """Return every gate of decoding that a site has, checked.

    Raises
    ------
    BundleError
        ``site.corrupt``.
    """
    return [_checked(site, entry, bundle) for entry in site.entries(KIND)]


def write_gate(site: Site, gate: DecodeGate, reports: bytes) -> None:
    """Store a gate that was passed in the place of an earlier one of the same key.

    Parameters
    ----------
    site : Site
    gate : DecodeGate
    reports : bytes
        As :func:`pack_reports` returns them.

    Raises
    ------
    BundleError
        ``site.busy``, ``site.unwritable``, ``site.corrupt``.
    """
    site.add_all(KIND, "", [(gate.scope.key, reports, msgspec.to_builtins(gate))], replace=True)


def pack_reports(reports: Mapping[str, Any]) -> bytes:
    """Return reports of the gates, by head, as the payload of an entry."""
    return msgspec.json.format(msgspec.json.encode(reports)) + b"\n"


def _others(site: Site) -> Iterator[DecodeGate]:
    """Return the facts of all entries that can be read: none of them is followed."""
    for entry in site.entries(KIND):
        with contextlib.suppress(msgspec.ValidationError):
            yield msgspec.convert(entry.facts, DecodeGate)


def _checked(site: Site, entry: SiteEntry, bundle: Bundle) -> DecodeGate:
    payload = site.read(entry)
    try:
        gate = msgspec.convert(entry.facts, DecodeGate)
        reports = msgspec.convert(strict_json(payload), dict[str, _OfFilms])
    except ValueError as error:  # msgspec.ValidationError is one
        raise _damaged(site, entry, f"it cannot be read: {error}") from error
    for fault in _faults(gate, reports, entry, bundle):
        raise _damaged(site, entry, fault)
    return gate


class _OfFilms(StatedReport, frozen=True):
    """A report of this gate: one bundle on both sides."""

    original: StatedModel
    findings: list[_Finding]


class _Finding(msgspec.Struct, frozen=True):
    key: Text


def _faults(
    gate: DecodeGate, reports: Mapping[str, _OfFilms], entry: SiteEntry, bundle: Bundle
) -> Iterator[str]:
    """Name what an entry says and no gate that was passed on this bundle could."""
    manifest = bundle.manifest
    if gate.scope.key != entry.key:
        yield f"its facts are of the key {gate.scope.key}"
    if entry.payload is None or entry.payload.sha256 != gate.gate.report:
        yield "its reports are not those that its facts name"
    if list(reports) != [head.name for head in manifest.heads]:
        yield f"its reports are of the heads {', '.join(reports) or 'none'}"
    for head, report in zip(manifest.heads, reports.values(), strict=True):
        if {report.original.sha256, report.candidate.sha256} != {bundle.hash}:
            yield f"the report of {head.name} is of another bundle"
        if [each.key for each in report.findings] != [each.key for each in manifest.findings_of(head.name)]:
            yield f"the report of {head.name} is of other findings"
        if report.images != gate.gate.images or report.patients > report.images:
            yield f"the report of {head.name} is of {report.images} images"
        if not enough_patients(report.patients):
            yield f"{report.patients} patients are too few for the gates of {head.name} to pass"
        for fault in gate_faults(report, LIMITS_OF, maps=head.map is not None):
            yield f"{head.name}, {fault.what}: expected {fault.expected}, found {fault.found}"


def enough_patients(patients: int) -> bool:
    """Tell whether so many decisions without a flip could pass: the interval of Clopper and Pearson."""
    bound = LIMITS[LIMITS_OF].finding_flips
    return bound is not None and patients > 0 and 1 - ((1 - CONFIDENCE) / 2) ** (1 / patients) <= bound


def _changed(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    differing = [name for name in now if then.get(name) != now[name]]
    return "; ".join(f"{name.replace('_', ' ')} was {then[name]} and is {now[name]}" for name in differing)


def _decoder() -> str:
    from PIL import __version__, features  # only where it decodes

    return f"Pillow {__version__} (OpenJPEG {features.version('jpg_2000') or 'unknown'})"


def _damaged(site: Site, entry: SiteEntry, message: str) -> BundleError:
    return corrupt(
        f"a gate of decoding is damaged: {message}",
        site.folder,
        found=entry.key,
        cure=f"`promptray gate-decode BUNDLE --remove {quoted(entry.key)}`, then gate it again",
    )
