"""The committed attacks and what each must get."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import NamedTuple

from tests.attacks import dicom, pictures

FOLDER = Path(__file__).parent
IMAGES = FOLDER / "images"


class Refusal(NamedTuple):
    """Code and message of the error that an attack must get."""

    code: str
    message: str


def expected(kind: str) -> dict[str, Refusal]:
    """The table ``expected.csv``: attack -> refusal, of one kind of attack."""
    with (FOLDER / "expected.csv").open(encoding="utf-8", newline="") as table:
        rows = [row for row in csv.DictReader(table) if row["kind"] == kind]
    return {row["attack"]: Refusal(row["code"], row["message"]) for row in rows}


def made_images() -> dict[str, bytes]:
    """All hostile images that are made by code, by the names of their files."""
    return {**dicom.attacks(), **pictures.attacks()}
