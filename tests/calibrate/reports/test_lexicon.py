"""The lexicon's data."""

from __future__ import annotations

import pytest

from promptray.calibrate.reports import extract
from promptray.calibrate.reports.lexicon import lexicon
from promptray.runtime.packs import read_pack


def test_findings_name_parents_that_exist_and_are_no_parents_of_themselves() -> None:
    findings = lexicon().findings
    assert len(findings) > 80
    for finding in findings.values():
        assert set(finding.parents) <= set(findings) - {finding.key}
        assert all(findings[parent].parents == [] for parent in finding.parents), "one level of kinds"


@pytest.mark.parametrize("key", sorted(lexicon().findings))
def test_every_phrase_of_a_finding_says_it(key: str) -> None:
    finding = lexicon().findings[key]
    missed = [phrase for phrase in finding.phrases if key not in {each.finding for each in extract(phrase)}]
    assert missed == []


def test_every_finding_of_the_chest_packs_but_padchests_can_be_read_in_a_report() -> None:
    packs = [read_pack(name) for name in ("chestxray14", "openi18", "chexpert5", "chestxdet10")]
    keys = {finding.key for pack in packs for finding in pack.findings}
    assert keys - set(lexicon().findings) == set()


def test_longest_phrases_win_and_do_not_overlap() -> None:
    mentions = lexicon().mentions(["no", "evidence", "of", "left", "pleural", "effusion"])
    assert [(each.start, each.end) for each in mentions] == [(0, 3), (3, 4), (4, 6)]
