"""The report of the gates is read as typed fields, or refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.parity import read_parity
from promptray.runtime.errors import BundleError
from promptray.runtime.verify import verify
from tests import bundle_factory as factory


def test_the_report_of_a_build_is_read_whole(carzero_bundle: Path) -> None:
    report = read_parity(Bundle.open(carzero_bundle))
    (head,) = report.heads
    assert head.decisions == report.images * head.findings
    assert head.against_original.score_error <= head.score_tolerance
    assert len(head.noise) >= 5
    assert report.notes


@pytest.mark.parametrize("content", ["[]", "{}", "xx", '{"notes": 7}', "[" * 100_000, ""])
def test_what_is_no_report_is_refused(tmp_path: Path, content: str) -> None:
    bundle = factory.write_plain(tmp_path / "chest.bundle")
    factory.relist(bundle.path, "parity.json", content.encode())
    with pytest.raises(BundleError) as caught:
        read_parity(Bundle.open(bundle.path))
    assert caught.value.code == "bundle.format"
    assert caught.value.artefact == "parity.json"


@pytest.mark.parametrize(
    "change",
    [
        {"notes": 7},
        {"heads": {"score_tolerance": -1}},
        {"heads": {"noise": [{}]}},
        {"heads": {"more": 1}},
        {"format_version": 1},
        {"more": 1},
    ],
)
def test_a_field_of_another_kind_is_refused_by_verify(
    carzero_bundle: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    copy = Path(shutil.copytree(carzero_bundle, tmp_path / "copy"))
    report = json.loads((copy / "parity.json").read_bytes())
    if "heads" in change:
        change = {"heads": [{**report["heads"][0], **change["heads"]}]}
    factory.relist(copy, "parity.json", json.dumps({**report, **change}).encode())
    with pytest.raises(BundleError, match="report of the gates") as caught:
        verify(copy, site=None)
    assert caught.value.code == "bundle.format"
