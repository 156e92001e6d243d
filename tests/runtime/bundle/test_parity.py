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


def noise(**changes: float | None) -> dict[str, Any]:
    """A change of a report: one variation, harmless but for `changes`."""
    return {"heads": [{"noise": [{"varied": "order", "score_error": 0.0, "map_error": 0.0, **changes}]}]}


MISFITS: dict[str, tuple[dict[str, Any], str]] = {
    "of fewer images": ({"images": 15}, "images"),
    "of another head": ({"heads": [{"head": "chest"}]}, "heads"),
    "of no head": ({"heads": []}, "heads"),
    "of more findings": ({"heads": [{"findings": 99}]}, "findings of findings"),
    "of other decisions": ({"heads": [{"decisions": 1}]}, "decisions of findings"),
    "of another bound": ({"heads": [{"score_tolerance": 1e-4}]}, "score tolerance of findings"),
    "of another bound of maps": ({"heads": [{"map_tolerance": 1e-3}]}, "map tolerance of findings"),
    "without maps": ({"heads": [{"against_original": {"map_error": None}}]}, "maps of findings"),
    "scores failed": ({"heads": [{"against_original": {"score_error": 3e-5}}]}, "scores of findings"),
    "maps failed": ({"heads": [{"against_original": {"map_error": 2e-6}}]}, "maps of findings"),
    "noise": (noise(score_error=1.0), "scores of findings"),
    "noise of maps": (noise(map_error=1.0), "maps of findings"),
    "noise without maps": (noise(map_error=None), "maps of findings"),
}


def merged(known: Any, change: Any) -> Any:
    """A report's values with some replaced, at any depth; a list of heads is of as many."""
    if isinstance(change, dict) and isinstance(known, dict):
        return {**known, **{key: merged(known[key], value) for key, value in change.items()}}
    if isinstance(change, list) and change and "head" in known[0]:
        return [merged(*pair) for pair in zip(known, change, strict=True)]
    return change


@pytest.mark.parametrize("case", MISFITS)
def test_a_report_that_is_not_the_bundles_is_refused_by_verify(
    carzero_bundle: Path, tmp_path: Path, case: str
) -> None:
    change, says = MISFITS[case]
    copy = Path(shutil.copytree(carzero_bundle, tmp_path / "copy"))
    report = json.loads((copy / "parity.json").read_bytes())
    factory.relist(copy, "parity.json", json.dumps(merged(report, change)).encode())
    with pytest.raises(BundleError, match=f"does not fit the bundle: {says}") as caught:
        verify(copy, site=None)
    assert (caught.value.code, caught.value.artefact) == ("bundle.format", "parity.json")
    assert caught.value.expected != caught.value.found


def test_the_heads_of_a_report_are_in_the_manifests_order(asg_both_bundle: Path, tmp_path: Path) -> None:
    read_parity(Bundle.open(asg_both_bundle))
    copy = Path(shutil.copytree(asg_both_bundle, tmp_path / "copy"))
    report = json.loads((copy / "parity.json").read_bytes())
    report["heads"].reverse()
    factory.relist(copy, "parity.json", json.dumps(report).encode())
    with pytest.raises(BundleError, match="does not fit the bundle: heads"):
        read_parity(Bundle.open(copy))
