"""Results as they were published, to stand beside those measured here. One JSON file per table."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files

import msgspec

from promptray.calibrate.tables.csv_file import TableError


class Published(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One published table of AUROC."""

    name: str
    model: str
    set: str
    pack: str
    """The prompt pack whose findings the table has."""
    images: int
    source: str
    """Where the numbers were read, and whether anyone has recomputed them."""
    findings: int
    macro_auroc: float
    auroc: dict[str, float]
    """By key of the pack; empty where only the mean was published."""

    def mean(self, keys: Sequence[str]) -> float | None:
        """Return the published mean over findings; None where the table does not tell it."""
        if len(keys) == self.findings and set(self.auroc) <= set(keys):
            return self.macro_auroc
        if keys and set(keys) <= set(self.auroc):
            return sum(self.auroc[key] for key in keys) / len(keys)
        return None


def published_names() -> list[str]:
    """Return the names of all tables."""
    return sorted(_tables())


def read_published(name: str) -> Published:
    """Return a table.

    Raises
    ------
    TableError
        ``table.not-found`` with the names that there are.
    """
    tables = _tables()
    if name not in tables:
        raise TableError(
            "table.not-found",
            "no published table has this name",
            artefact=name,
            expected=f"one of {', '.join(sorted(tables))}",
            cure="correct --published",
        )
    return tables[name]


def _tables() -> dict[str, Published]:
    folder = files(__package__) / "published_tables"
    tables = [msgspec.json.decode(file.read_bytes(), type=Published) for file in folder.iterdir()]
    return {table.name: table for table in tables}
