"""Alternatives that are edited: a scale never is, and a group is summed whole or not at all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from promptray import Bundle, PromptError, Scorer
from promptray.cli import run
from promptray.runtime.packs import read_pack
from promptray.runtime.site import Site
from tests.examinations import with_rule
from tests.open_clip_tiny import CLASSES, image_path, shared_bundle

DENSITY = {"pack": "birads-density", "relation": "ordinal", "findings": None}
STEPS = [each.key for each in read_pack("birads-density").findings]
FIRST, SECOND, *_ = CLASSES
GROUPS = {"both": [FIRST, SECOND], "one": [SECOND]}


@pytest.fixture
def scale(shared_dir: Path) -> Path:
    return shared_bundle(shared_dir, "open-clip-pack", **DENSITY)


@pytest.fixture
def grouped(shared_dir: Path) -> Path:
    return shared_bundle(shared_dir, "open-clip-groups", groups=GROUPS)


EDITS: dict[str, Callable[[Scorer, bytes], object]] = {
    "add": lambda scorer, data: scorer.prompts.add("density E", "breasts of metal"),
    "add a pack": lambda scorer, data: scorer.prompts.add_pack("birads-density"),
    "remove": lambda scorer, data: scorer.prompts.remove(STEPS[0]),
    "import": lambda scorer, data: scorer.prompts.import_(data),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_scale_is_not_edited(scale: Path, edit: str) -> None:
    with Scorer.open(scale, site=None) as scorer:
        before = scorer.score(image_path("tall"), modality="DX")
        with pytest.raises(PromptError) as refusal:
            EDITS[edit](scorer, scorer.prompts.export(STEPS[:1]))
        after = scorer.score(image_path("tall"), modality="DX")
    assert refusal.value.code == "prompt.fixed-set"
    assert refusal.value.cure
    assert list(after.scores) == STEPS
    assert after.summary == before.summary


@pytest.mark.parametrize("kind", ["prompt", "removed-prompt"])
def test_a_site_that_edited_a_scale_is_refused_and_mended(
    scale: Path, tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with Scorer.open(scale, site=None) as scorer:
        payload = scorer.prompts.export(STEPS[:1])
    site = Site.open(tmp_path, Bundle.open(scale).hash)
    site.add(kind, "findings", STEPS[0], payload if kind == "prompt" else b"")  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="site directory changes findings") as refusal:
        Scorer.open(scale, site=tmp_path)
    assert refusal.value.code == "prompt.fixed-set"
    assert refusal.value.cure
    undo = {"prompt": "remove", "removed-prompt": "restore"}[kind]
    assert f'prompts BUNDLE {undo} "{STEPS[0]}" --head findings' in refusal.value.cure
    arguments = ["prompts", str(scale), undo, STEPS[0], "--head", "findings", "--site", str(tmp_path)]
    assert run(arguments) == 0, capsys.readouterr().err
    with Scorer.open(scale, site=tmp_path) as scorer:
        assert [finding.key for finding in scorer.prompts] == STEPS


def test_a_group_without_all_its_findings_has_no_share(grouped: Path) -> None:
    with Scorer.open(grouped, site=None) as scorer:
        whole = scorer.score(image_path("tall"), modality="DX")
        scorer.prompts.remove(FIRST)
        result = scorer.score(image_path("tall"), modality="DX")
        scorer.prompts.add(FIRST, CLASSES[FIRST])
        again = scorer.score(image_path("tall"), modality="DX")
    assert whole.summary is not None
    assert result.summary is not None
    assert again.summary is not None
    for one in (whole, again):
        assert "group-incomplete" not in [each.code for each in one.notices]
    assert list(whole.summary.groups) == list(again.summary.groups) == ["both", "one"]
    assert list(result.summary.groups) == ["one"]
    (notice,) = (each for each in result.notices if each.code == "group-incomplete")
    assert notice.message.endswith("Groups: both.")
    assert np.allclose([*again.summary.groups.values()], [*whole.summary.groups.values()], atol=1e-6)


def test_an_examination_leaves_an_incomplete_group_out_too(grouped: Path, tmp_path: Path) -> None:
    ruled = with_rule(grouped, tmp_path, views=["PA"], over_views="mean", over_sides="none")
    with Scorer.open(ruled, site=None) as scorer:
        scorer.prompts.remove(FIRST)
        result = scorer.score_exam([image_path("tall")], views=["PA"], modality="DX")
    assert result.examination is not None
    (summary,) = result.examination.summaries
    assert list(summary.groups) == ["one"]
    assert "group-incomplete" in [notice.code for notice in result.results[0].notices]
