"""A whole pack is added to a scorer, or nothing of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from promptray.runtime.errors import PromptError
from promptray.runtime.packs import read_pack
from promptray.runtime.scorer import Scorer


def test_a_pack_is_scored_as_its_findings_added_one_by_one(carzero_bundle: Path) -> None:
    picture = np.arange(200 * 220, dtype=np.uint32).reshape(200, 220).astype(np.uint8)
    with Scorer.open(carzero_bundle, site=None) as whole, Scorer.open(carzero_bundle, site=None) as single:
        for scorer in (whole, single):
            scorer.prompts.remove("atelectasis")  # the bundle's own has the pack's key
        added = whole.prompts.add_pack("chexpert5")
        for each in read_pack("chexpert5").findings:
            single.prompts.add(each.key, each.prompts, display=each.display, code=each.code)
        results = [scorer.score(picture, modality="DX") for scorer in (whole, single)]
    assert [each.key for each in added] == [each.key for each in read_pack("chexpert5").findings]
    assert added[0].code == read_pack("chexpert5").findings[0].code
    assert results[0].document.findings == results[1].document.findings


def test_a_pack_of_which_one_key_is_taken_adds_nothing(carzero_bundle: Path) -> None:
    with Scorer.open(carzero_bundle, site=None) as scorer:
        before = [each.key for each in scorer.prompts]
        with pytest.raises(PromptError, match=r"prompt\.exists.*atelectasis"):
            scorer.prompts.add_pack("chexpert5")
        assert [each.key for each in scorer.prompts] == before


def test_a_pack_that_is_kept_is_there_again(carzero_bundle: Path, tmp_path: Path) -> None:
    with Scorer.open(carzero_bundle, site=tmp_path) as scorer:
        scorer.prompts.remove("atelectasis", keep=True)
        scorer.prompts.add_pack("chexpert5", keep=True)
        kept = list(scorer.prompts)
    with Scorer.open(carzero_bundle, site=tmp_path) as scorer:
        assert list(scorer.prompts) == kept
        assert scorer.prompts.origin("consolidation") == "site"


def test_alternatives_are_refused_where_findings_are_independent(carzero_bundle: Path) -> None:
    with (
        Scorer.open(carzero_bundle, site=None) as scorer,
        pytest.raises(PromptError, match="ordinal") as caught,
    ):
        scorer.prompts.add_pack("birads-density")
    assert caught.value.code == "prompt.invalid"


def test_an_unknown_pack_and_a_missing_text_graph_are_said(
    carzero_bundle: Path, carzero_bundle_no_text: Path
) -> None:
    with Scorer.open(carzero_bundle, site=None) as scorer, pytest.raises(PromptError, match="unknown-pack"):
        scorer.prompts.add_pack("nothing")
    with Scorer.open(carzero_bundle_no_text, site=None) as scorer:
        scorer.prompts.remove("atelectasis")
        with pytest.raises(PromptError, match=r"prompt\.no-text-graph"):
            scorer.prompts.add_pack("chexpert5")
