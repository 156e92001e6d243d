"""Open-I's reports and their manual codes, as findings that can be compared with triplets."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

CODES = Path(__file__).parent / "openi_codes.json"


class CodedFinding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A finding: its name here, the extractor's keys for it, the publisher's codes for it."""

    name: str
    keys: list[str]
    codes: list[str]


class CodeMap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of ``openi_codes.json``."""

    source: str
    rule: str
    excluded: list[str]
    sides: dict[str, str]
    places: dict[str, str]
    findings: list[CodedFinding]


@dataclass(frozen=True)
class CodedReport:
    """One report: its text, its codes as (heading, qualifiers), and the half it belongs to."""

    text: str
    codes: tuple[tuple[str, frozenset[str]], ...]
    half: str

    def codes_of(self, finding: CodedFinding) -> list[frozenset[str]]:
        """Return the qualifiers of every code of the report that stands for a finding."""
        wanted = [_parsed(code) for code in finding.codes]
        return [
            qualifiers
            for heading, qualifiers in self.codes
            if any(heading == name and needed <= qualifiers for name, needed in wanted)
        ]


def code_map() -> CodeMap:
    """Return the committed mapping."""
    return msgspec.json.decode(CODES.read_bytes(), type=CodeMap)


def read_reports(table: Path, excluded: list[str]) -> Iterator[CodedReport]:
    """Yield the reports that have text and codes, findings and impression joined.

    The halves are drawn by a hash of the report's id: rules are tuned on the one, never on the other.
    """
    with table.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            text = f"Findings: {row['findings']}\n\nImpression: {row['impression']}"
            codes = tuple(_parsed(code) for code in row["mesh_major"].split(";"))
            has_text = row["findings"].strip() or row["impression"].strip()
            if has_text and not any(heading in excluded for heading, _ in codes):
                digest = hashlib.sha256(f"half {row['report_id']}".encode()).digest()
                yield CodedReport(text, codes, "untouched" if digest[-1] % 2 else "tuning")


def _parsed(code: str) -> tuple[str, frozenset[str]]:
    heading, *qualifiers = (part.strip() for part in code.split("/"))
    return heading, frozenset(qualifiers)
