"""`promptray repack`."""

from __future__ import annotations

from pathlib import Path

from promptray.runtime.bundle import Bundle
from tests.promptray.command_line import Call


def test_it_makes_a_bundle_of_the_sites_findings(
    call: Call, bundle: Path, site: Path, tmp_path: Path
) -> None:
    call("prompts", bundle, "add", "rib fracture", "There is rib fracture.", "--site", site)
    call("prompts", bundle, "remove", "effusion", "--site", site)
    new = tmp_path / "new.bundle"
    answer = call("repack", bundle, "--site", site, "-o", new, "--json")
    assert answer.code == 0, answer.err
    (document,) = answer.documents
    keys = [finding.key for finding in Bundle.open(new).manifest.findings]
    assert document == {
        "bundle": str(new),
        "sha256": Bundle.open(new).hash,
        "findings": len(keys),
        "repacked": {
            "bundle": Bundle.open(bundle).hash,
            "site_revision": 3,
            "added": ["rib fracture"],
            "removed": ["effusion"],
        },
        "groups_left_out": [],
        "calibrations_carried": [],
        "calibrations_left": [],
        "engines_left": [],
        "plans": [],
    }
    assert "rib fracture" in keys
    assert "effusion" not in keys
    shown = call("inspect", new, "--no-site").out
    assert "site revision 3" in shown

    again = call("repack", bundle, "--site", site, "-o", new, "--json")
    assert again.code == 1
    assert again.documents[0]["error"]["code"] == "bundle.exists"


def test_it_says_what_it_did_and_what_it_cannot_do(
    call: Call, bundle: Path, site: Path, tmp_path: Path
) -> None:
    refused = call("repack", bundle, "--site", site, "-o", tmp_path / "new.bundle")
    assert refused.code == 1
    assert "repack.nothing" in refused.err
    assert "promptray prompts" in refused.err
    call("prompts", bundle, "remove", "effusion", "--site", site)
    answer = call("repack", bundle, "--site", site, "-o", tmp_path / "new.bundle")
    assert answer.code == 0, answer.err
    assert "left out: effusion" in answer.out
    assert "Examples:" in call("repack", "--help").out
