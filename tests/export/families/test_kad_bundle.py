"""KAD's bundles from file to score: a fixed set made by text; its text graph is to check with, not to add."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from promptray import Bundle, BundleError, PromptError, Scorer
from promptray.cli import run
from promptray.export.build import build
from promptray.runtime.errors import BuildError
from promptray.runtime.result import Result
from promptray.runtime.verify import verify
from tests import kad_arithmetic, kad_tiny
from tests.bundle_factory import relist
from tests.kad_tiny import FINDINGS, IMAGES, Sizes

LOGIT, MAP = 1e-5, 1e-6
NAMED = [{"key": f"finding {number}", "prompt": term} for number, term in enumerate(FINDINGS)]


@pytest.fixture(scope="module")
def bundle(shared_dir: Path) -> Path:
    return kad_tiny.shared_bundle(shared_dir, "kad")


@pytest.fixture(scope="module")
def bundle_no_text(shared_dir: Path) -> Path:
    """The same findings under other keys, in the reverse order, without the text graph."""
    return kad_tiny.shared_bundle(shared_dir, "kad-no-text", findings=NAMED[::-1], text_graph=False)


@contextmanager
def opened(bundle: Path, **options: Any) -> Iterator[Scorer]:
    with Scorer.open(bundle, **{"site": None, "threads": 2, **options}) as scorer:
        yield scorer


def logits(result: Result) -> Any:
    return np.array([each.logit for each in result.scores.values()])


def expected(bundle: Path, pixels: Any) -> tuple[Any, Any]:
    tokenizer = Tokenizer.from_file(str(bundle / "tokenizer.json"))
    ids = [tokenizer.encode(term).ids for term in FINDINGS]
    content = kad_tiny.checkpoint()
    return kad_arithmetic.scored(content, torch.from_numpy(pixels), ids, Sizes().bert_heads)


@pytest.mark.parametrize("reproducible", [False, True])
def test_scores_and_maps_equal_the_formulas(bundle: Path, reproducible: bool) -> None:
    with opened(bundle, reproducible=reproducible) as scorer:
        for path in IMAGES:
            pixels = scorer.prepare(path, modality="DX").network_input.pixels
            wanted, maps = expected(bundle, pixels)
            result = scorer.score(path, modality="DX")
            assert list(result.scores) == list(FINDINGS)
            assert np.abs(logits(result) - wanted[0]).max() <= LOGIT
            for number, (key, score) in enumerate(result.scores.items()):
                assert score.sigmoid == pytest.approx(1 / (1 + np.exp(-wanted[0, number])), abs=LOGIT)
                assert np.abs(result.grid(key).ravel() - maps[0, number]).max() <= MAP


def test_another_order_permutes_and_a_part_changes(
    bundle: Path, bundle_no_text: Path, shared_dir: Path
) -> None:
    part = kad_tiny.shared_bundle(shared_dir, "kad-part", findings=NAMED[:2])
    scores = []
    for path in (bundle, bundle_no_text, part):
        with opened(path) as scorer:
            scores.append(logits(scorer.score(IMAGES[0], modality="DX")))
    whole, backwards, some = scores
    assert np.abs(backwards[::-1] - whole).max() <= LOGIT
    assert np.abs(some - whole[:2]).max() > 10 * LOGIT


def test_verify_encodes_a_finding_again(bundle: Path, bundle_no_text: Path) -> None:
    report = verify(bundle, site=None)
    assert report.golden.text_error is not None
    assert report.golden.text_error < 1e-5
    assert report.golden.heads[0].score_error <= LOGIT
    assert verify(bundle_no_text, site=None).golden.text_error is None


def test_a_tokenizer_that_tokenises_otherwise_is_refused(bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(bundle, copy)
    content = json.loads((copy / "tokenizer.json").read_text(encoding="utf-8"))
    pieces = content["model"]["vocab"]
    pieces["pleural"], pieces["normal"] = pieces["normal"], pieces["pleural"]
    relist(copy, "tokenizer.json", json.dumps(content).encode())
    with pytest.raises(BundleError, match="encodes a finding otherwise") as refused:
        verify(copy, site=None)
    assert refused.value.code == "bundle.golden"


@pytest.mark.parametrize("with_text", [True, False])
def test_no_finding_is_added_or_removed(
    bundle: Path, bundle_no_text: Path, tmp_path: Path, with_text: bool
) -> None:
    """With a text graph as without: it could encode the prompt, and the others' scores would change."""
    path = bundle if with_text else bundle_no_text
    with opened(path, site=tmp_path) as scorer:
        before = logits(scorer.score(IMAGES[0], modality="DX"))
        key = next(iter(scorer.prompts)).key
        exported = scorer.prompts.export([key])
        edits = {
            "add": lambda: scorer.prompts.add("edema"),
            "keep": lambda: scorer.prompts.add("edema", "edema", keep=True),
            "add a pack": lambda: scorer.prompts.add_pack("chexpert5"),
            "remove": lambda: scorer.prompts.remove(key),
            "forget": lambda: scorer.prompts.remove(key, keep=True),
            "import": lambda: scorer.prompts.import_(exported),
        }
        for name, edit in edits.items():
            with pytest.raises(PromptError, match="one unit") as refused:
                edit()
            assert refused.value.code == "prompt.fixed-set", name
            assert "build a bundle with the wanted findings" in str(refused.value)
        assert np.array_equal(logits(scorer.score(IMAGES[0], modality="DX")), before)


def test_the_command_line_lists_and_refuses(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at_site = ["--site", str(tmp_path)]
    for command in (["add", "edema"], ["remove", FINDINGS[0]]):
        assert run(["prompts", str(bundle), *command, *at_site]) == 1
        assert "[prompt.fixed-set]" in capsys.readouterr().err
    assert run(["prompts", str(bundle), "list", *at_site]) == 0
    listed = capsys.readouterr().out
    assert all(term in listed for term in FINDINGS)
    assert run(["verify", str(bundle), *at_site]) == 0
    assert run(["inspect", str(bundle), *at_site]) == 0


def test_the_bundle_says_what_was_not_verified(bundle: Path) -> None:
    notes = json.loads((bundle / "parity.json").read_text(encoding="utf-8"))["notes"]
    assert any("not compared with the published weights" in note for note in notes)
    provenance = Bundle.open(bundle).manifest.provenance
    assert {"config.json", "vocab.txt"} <= {source.name for source in provenance.sources}


def test_prompts_that_the_model_cannot_tell_apart_are_pointed_out(shared_dir: Path) -> None:
    findings = [{"key": "one", "prompt": "pleural effusion"}, {"key": "two", "prompt": "pleural\neffusion"}]
    path = kad_tiny.shared_bundle(shared_dir, "kad-alike", findings=findings)
    with opened(path) as scorer:
        result = scorer.score(IMAGES[0], modality="DX")
    assert "prompt-duplicate" in {notice.code for notice in result.notices}
    assert np.ptp(logits(result)) <= LOGIT


RECIPES: dict[str, tuple[dict[str, Any], str]] = {
    "alternatives": ({"relation": "exclusive"}, "relation"),
    "pairs": (
        {"relation": "pair", "findings": [{"key": "edema", "negative_prompt": "no edema"}]},
        "relation",
    ),
    "an ensemble": ({"findings": [{"key": "edema", "prompt": ["edema", "swelling"]}]}, "one wording"),
    "classes": ({"findings": [{"key": "edema", "class_name": "A"}]}, "wordings, not classes"),
    "two templates": ({"templates": ["{}", "there is {}"]}, "one wording"),
    "an option of another family": ({"model_options": {"image_heads": 4}}, "no such option"),
}


@pytest.mark.parametrize("case", RECIPES)
def test_recipes_that_kad_cannot_score_are_refused(shared_dir: Path, tmp_path: Path, case: str) -> None:
    changes, said = RECIPES[case]
    with pytest.raises(BuildError, match=said) as refused:
        build(kad_tiny.write_recipe(tmp_path, **changes), tmp_path / "b", cache=shared_dir / "cache")
    assert refused.value.code == "recipe.invalid"
    assert not (tmp_path / "b").exists()
