"""The published tables fit the packs whose findings they have."""

from __future__ import annotations

import pytest

from promptray.calibrate.published import published_names, read_published
from promptray.calibrate.tables.csv_file import TableError
from promptray.runtime.packs import read_pack


@pytest.mark.parametrize("name", published_names())
def test_a_table_has_the_findings_of_its_pack(name: str) -> None:
    table, keys = (
        read_published(name),
        [finding.key for finding in read_pack(read_published(name).pack).findings],
    )
    assert table.name == name
    assert table.findings == len(keys)
    assert list(table.auroc) in ([], keys)
    assert table.mean(keys) == table.macro_auroc
    assert all(0.5 < value < 1 for value in (table.macro_auroc, *table.auroc.values()))
    assert table.source


@pytest.mark.parametrize("name", ["carzero-chestxray14", "carzero-openi18"])
def test_the_mean_is_that_of_the_findings(name: str) -> None:
    table = read_published(name)
    assert sum(table.auroc.values()) / len(table.auroc) == pytest.approx(table.macro_auroc, abs=5e-4)


def test_the_mean_of_some_findings() -> None:
    table = read_published("carzero-chestxray14")
    assert table.mean(["hernia", "pulmonary edema"]) == pytest.approx((0.928 + 0.884) / 2)
    assert table.mean(["gout"]) is None
    assert table.mean([]) is None
    assert read_published("carzero-padchest192").mean(["hernia"]) is None


def test_an_unknown_table_is_refused_with_those_that_are_there() -> None:
    with pytest.raises(TableError, match="carzero-chestxray14"):
        read_published("carzero")
