"""ASG's bundles through the public Scorer: the original's scores, a bag of words, tags as one unit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptray import Bundle, PromptError, Scorer
from promptray.cli import run
from promptray.runtime.backends import load_backend
from promptray.runtime.graphs import REPRODUCIBLE_PROMPTS, Graphs, own_bank
from promptray.runtime.result import Result
from promptray.runtime.site import Site
from tests.asg_tiny import IMAGES, PROMPTS, TAGS, image_path, oracle, planes

REVERSED = list(reversed(TAGS))


@pytest.fixture(scope="module")
def original() -> dict[str, Any]:
    return oracle()


@contextmanager
def opened(bundle: Path, **options: Any) -> Iterator[Scorer]:
    with Scorer.open(bundle, **{"site": None, "threads": 2, **options}) as scorer:
        yield scorer


def score(scorer: Scorer, name: str) -> Result:
    return scorer.score(image_path(name), modality="DX")


def values(result: Result, field: str) -> Any:
    return np.array([getattr(each, field) for each in result.scores.values()])


@pytest.mark.parametrize("reproducible", [False, True])
def test_prompts_equal_the_original(asg_bundle: Path, original: dict[str, Any], reproducible: bool) -> None:
    with opened(asg_bundle, reproducible=reproducible) as scorer:
        for n, name in enumerate(IMAGES):
            result = score(scorer, name)
            assert list(result.scores) == list(PROMPTS)
            assert np.abs(values(result, "logit") - original["scores_scaled"][n]).max() <= 2e-5
            assert all(each.sigmoid is None and each.softmax is None for each in result.scores.values())
            pixels = scorer.prepare(image_path(name), modality="DX").network_input.pixels
            made = planes(pixels, scorer.bundle.manifest.preprocessing)
            assert np.abs(made[0] - original["images"][n]).max() <= 1e-6


def test_a_map_is_the_cosine_of_patches_and_words(asg_bundle: Path, original: dict[str, Any]) -> None:
    words = original["prompt_words"][0, :3]  # what "pleural effusion" is cut into
    with opened(asg_bundle) as scorer:
        entry = scorer.prompts.state.heads[0].bank.entries[0]
        count = entry.prompts[0].words
        mean = words[:count].sum(axis=0)
        grid = original["image_local"][0] @ (mean / np.linalg.norm(mean))
        assert np.abs(score(scorer, IMAGES[0]).grid("short").ravel() - grid).max() <= 5e-6


def test_prompts_of_the_same_words_are_pointed_out(asg_bundle: Path) -> None:
    """`order a` says the opposite of `order b`, and nothing of that reaches the model."""
    with opened(asg_bundle) as scorer:
        scorer.prompts.add("again", "no  EDEMA mild\neffusion pleural")
        scorer.prompts.add("other words", "no edema mild effusion")
        result = score(scorer, IMAGES[1])
        notices = {notice.code: notice.message for notice in result.notices}
    assert notices["prompt-duplicate"].endswith("Findings: order a, order b, again.")
    alike = [result.scores[key].logit for key in ("order a", "order b", "again")]
    assert max(alike) - min(alike) <= 2e-5
    assert abs(result.scores["other words"].logit - alike[0]) > 1e-3


def test_the_bundle_says_what_its_text_side_does_not_see(asg_bundle: Path) -> None:
    bundle = Bundle.open(asg_bundle)
    assert bundle.manifest.text is not None
    assert bundle.manifest.text.order == "ignored"
    assert "sees no order" in bundle.read("parity.json").decode()


def test_a_prompt_without_a_word_is_refused_even_if_asked_for(asg_bundle: Path) -> None:
    with opened(asg_bundle) as scorer:
        with pytest.raises(PromptError) as refused:
            scorer.prompts.add("nothing", "\n")
        assert refused.value.code == "prompt.empty"
        with pytest.raises(PromptError, match="makes no vector") as refused:
            scorer.prompts.add("nothing", "\n", allow_empty=True)
        assert refused.value.code == "prompt.invalid"


@pytest.mark.parametrize("reproducible", [False, True])
def test_tags_equal_the_original(asg_tags_bundle: Path, original: dict[str, Any], reproducible: bool) -> None:
    """Also where head calls have a fixed number of prompts: 40 are no multiple of it, and none is padded."""
    assert len(TAGS) % REPRODUCIBLE_PROMPTS
    with opened(asg_tags_bundle, reproducible=reproducible) as scorer:
        alone = [score(scorer, name) for name in IMAGES]
        together = list(scorer.score_many([image_path(name) for name in IMAGES], modality="DX"))
    for n, result in enumerate(alone):
        assert list(result.scores) == REVERSED
        assert np.abs(values(result, "logit") - original["tag_logits"][n, ::-1]).max() <= 2e-5
        assert np.abs(values(result, "sigmoid") - original["tag_probabilities"][n, ::-1]).max() <= 5e-6
        grids = np.stack([result.grid(tag) for tag in TAGS]).reshape(40, 196)
        assert np.abs(grids - original["tag_maps"][n]).max() <= 2e-6
        assert all(each.probability is None and each.softmax is None for each in result.scores.values())
        assert (values(result, "logit") == values(together[n], "logit")).all()


def test_the_document_names_the_sigmoid(asg_tags_bundle: Path) -> None:
    with opened(asg_tags_bundle) as scorer:
        found = score(scorer, IMAGES[0]).to_json()["findings"][0]
    assert found["score"]["sigmoid"] == pytest.approx(1 / (1 + np.exp(-found["score"]["logit"])))
    assert found["score"]["probability"] is None
    assert found["prompts"] == []


def test_a_tag_is_neither_added_nor_removed(asg_tags_bundle: Path, tmp_path: Path) -> None:
    with opened(asg_tags_bundle, site=tmp_path) as scorer:
        exported = scorer.prompts.export(["edema"])
        edits = {
            "add": lambda: scorer.prompts.add("rib fracture", "rib fracture"),
            "keep": lambda: scorer.prompts.add("rib fracture", "rib fracture", keep=True),
            "remove": lambda: scorer.prompts.remove("edema"),
            "forget": lambda: scorer.prompts.remove("edema", keep=True),
            "import": lambda: scorer.prompts.import_(exported),
        }
        for name, edit in edits.items():
            with pytest.raises(PromptError, match="one unit") as refused:
                edit()
            assert refused.value.code == "prompt.fixed-set", name
        assert len(score(scorer, IMAGES[0]).scores) == len(TAGS)


def test_the_command_line_refuses_too(
    asg_tags_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at_site = ["--site", str(tmp_path)]
    for command in (["remove", "edema"], ["add", "rib fracture"]):
        assert run(["prompts", str(asg_tags_bundle), *command, *at_site]) == 1
        assert "[prompt.fixed-set]" in capsys.readouterr().err
    assert run(["prompts", str(asg_tags_bundle), "list", *at_site]) == 0


def test_a_site_that_changes_the_set_is_refused_until_mended(
    asg_tags_bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = Bundle.open(asg_tags_bundle).hash
    Site.open(tmp_path, digest).add("removed-prompt", "tags", "edema")
    with pytest.raises(PromptError, match="site directory changes findings") as refused:
        Scorer.open(asg_tags_bundle, site=tmp_path)
    assert refused.value.code == "prompt.fixed-set"
    assert 'restore "edema"' in str(refused.value)
    at_site = ["--site", str(tmp_path)]
    assert run(["prompts", str(asg_tags_bundle), "restore", "edema", *at_site]) == 0
    with opened(asg_tags_bundle) as scorer:
        payload = scorer.prompts.export(["edema"])
    Site.open(tmp_path, digest).add("prompt", "tags", "edema", payload)
    with pytest.raises(PromptError, match="site directory changes findings") as refused:
        Scorer.open(asg_tags_bundle, site=tmp_path)
    assert 'remove "edema"' in str(refused.value)
    assert run(["prompts", str(asg_tags_bundle), "remove", "edema", *at_site]) == 0
    assert run(["prompts", str(asg_tags_bundle), "list", *at_site]) == 0
    assert "edema" in capsys.readouterr().out


def test_the_head_takes_the_whole_set_or_nothing(asg_tags_bundle: Path) -> None:
    bundle = Bundle.open(asg_tags_bundle)
    graphs = Graphs(bundle, load_backend("onnxruntime-cpu", threads=1), prompts_per_batch=16)
    (head,) = bundle.manifest.heads
    bank = own_bank(bundle, head)
    assert [len(batch.positions) for batch in graphs.bind(head, bank).batches] == [len(TAGS)]
    with pytest.raises(PromptError, match="difference in edema") as refused:
        graphs.bind(head, bank.without("edema"))
    assert refused.value.code == "prompt.fixed-set"
