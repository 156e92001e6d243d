"""The report of ``promptray accept``: a versioned JSON document; the schema is these classes."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from promptray.calibrate.bench.report import BenchReport, Machine
from promptray.calibrate.evaluation_report import RefusedImage
from promptray.calibrate.gates.report import GateReport
from promptray.runtime.backends import BackendFacts
from promptray.runtime.bundle.manifest import ModelFacts, Provenance
from promptray.runtime.gate_limits import Kind
from promptray.runtime.golden import GoldenReport
from promptray.runtime.json_schema import schema_of
from promptray.runtime.site_files import Kind as EntryKind

PartName = Literal["integrity", "golden", "images", "agreement", "latency"]
PartVerdict = Literal["passed", "refused", "inconclusive", "not run"]
#: The parts, in the order in which they are held.
PARTS: tuple[PartName, ...] = ("integrity", "golden", "images", "agreement", "latency")


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the report's structures: immutable, keyword-only, closed."""


class Part(_Struct, frozen=True):
    """One part of the acceptance."""

    name: PartName
    verdict: PartVerdict
    reason: str


class BundleIdentity(_Struct, frozen=True):
    """What was accepted or not."""

    name: str
    family: str
    sha256: str
    """Of ``bundle.json``, which holds the hash of every other file."""
    model: ModelFacts
    provenance: Provenance


class EntryRef(_Struct, frozen=True):
    """An entry of the site directory."""

    kind: EntryKind
    head: str
    """Empty for engines, which are of all heads."""
    key: str
    sha256: str | None
    """Of its payload; None for an entry that is only facts."""


class SiteState(_Struct, frozen=True):
    """What the site had added when the report was made."""

    revision: int
    """0: nothing yet."""
    entries: list[EntryRef]


class Integrity(_Struct, frozen=True):
    """Files and entries of the site whose hash was compared and found right."""

    files: int
    site_entries: int


class Images(_Struct, frozen=True):
    """The site's images. They have numbers and no names: names of files are patient data."""

    given: int
    scored: int
    refused: list[RefusedImage]
    """Which ones: ``file 3``, or ``line 3`` of the table of labels."""
    refused_by_code: dict[str, int]
    refused_at_most: float
    """Share of the images that the door may refuse."""
    files_sha256: str
    """Of the files' own hashes, in the order of their numbers: proof of what was given, refused ones too."""
    pictures_sha256: str
    """Of the pictures that the network saw, in the same order."""


class ReferenceRef(_Struct, frozen=True):
    """The fp32 original that the bundle was held against."""

    name: str
    sha256: str
    backend: BackendFacts
    refused: list[RefusedImage]
    """Images that it refused; only those that both scored are compared."""


class HeadAgreement(_Struct, frozen=True):
    """The gates of one head."""

    head: str
    kind: Kind
    """Whose limits were held, or tighter ones that the bundle's own gates had."""
    gates: GateReport


class Agreement(_Struct, frozen=True):
    """What the scores were held against."""

    against: Literal["golden pictures only", "reference"]
    reference: ReferenceRef | None
    heads: list[HeadAgreement]
    not_compared: list[str]
    """Findings scored here that the reference does not score, or with other wordings."""


class Parameters(_Struct, frozen=True):
    """What the command was given; folders and files have no names here."""

    sla: str
    budget_seconds: float
    refused_at_most: float
    reference: bool
    labels_sha256: str | None
    """Of the table; None where no labels were given."""
    modality: str | None
    strict: bool
    backend: str
    threads: int | None
    prepare: Literal["cpu", "device"]
    """Where images were to be brought to the network's input; the reference's are on the CPU."""
    reduced_decode: bool
    """Whether JPEG 2000 was to be decoded at a lower resolution; the reference's is decoded whole."""
    reproducible: bool
    site: Literal["user's", "given", "none"]
    uncertain: Literal["ignore", "present", "absent"]
    draws: int
    seed: int


class AcceptanceReport(_Struct, frozen=True):
    """All of ``accept.json``. It holds no names of files, no patient ids and nothing of what images show."""

    schema: Literal["promptray-acceptance"]
    schema_version: Literal[1]
    software: str
    versions: dict[str, str]
    """Python and the packages of the edge install."""
    created: str
    """Local date and time with its offset from UTC, ISO 8601."""
    time_zone: str
    """What the machine calls its zone."""
    verdict: Literal["accepted", "not accepted"]
    """Accepted only where every part passed."""
    parts: list[Part]
    bundle: BundleIdentity
    site: SiteState | None
    """None where no site directory was used, or it was damaged."""
    backend: BackendFacts | None
    """None, as all that follows but the machine, where the part that tells it was not run."""
    machine: Machine
    integrity: Integrity | None
    golden: GoldenReport | None
    images: Images | None
    agreement: Agreement | None
    latency: BenchReport | None
    parameters: Parameters


def acceptance_schema() -> dict[str, Any]:
    """Return the JSON Schema of the report."""
    return schema_of(AcceptanceReport)
