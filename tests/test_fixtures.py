"""The fixtures keep their promises."""

from __future__ import annotations

from pathlib import Path

from promptray.export.stage_cache import default_cache
from promptray.runtime.bundle import Bundle
from promptray.runtime.site import default_root
from tests.carzero_tiny import PROMPTS


def test_the_users_own_folders_are_out_of_reach(tmp_path: Path) -> None:
    assert tmp_path.parent in default_root().parents
    assert tmp_path.parent in default_cache().parents


def test_the_shared_bundle_has_the_fixtures_prompts(carzero_bundle: Path) -> None:
    findings = Bundle.open(carzero_bundle).manifest.findings
    assert {finding.key: finding.prompts for finding in findings} == {
        key: [text] for key, text in PROMPTS.items()
    }


def test_the_bundle_without_text_graph_has_none(carzero_bundle_no_text: Path) -> None:
    assert [graph.role for graph in Bundle.open(carzero_bundle_no_text).manifest.graphs] == ["image", "head"]
