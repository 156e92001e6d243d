"""Two heads in one bundle, through the public Scorer: ASG's prompts and tags, one image side."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import safetensors.numpy

from promptray import Bundle, BundleError, PromptError, Scorer, ScoringError
from promptray.runtime.bank_file import unpack
from promptray.runtime.heads import require_head
from promptray.runtime.result import result_schema
from promptray.runtime.site import Site
from promptray.runtime.verify import verify
from tests import bundle_factory as factory
from tests.asg_tiny import IMAGES, PROMPTS, TAGS, image_path, oracle

KEYS = [*PROMPTS, "pneumothorax"]


@pytest.fixture(scope="module")
def original() -> dict[str, Any]:
    return oracle()


@pytest.fixture
def scorer(asg_both_bundle: Path) -> Iterator[Scorer]:
    with Scorer.open(asg_both_bundle, site=None, threads=2) as opened:
        yield opened


def score(scorer: Scorer, name: str = IMAGES[0]) -> Any:
    return scorer.score(image_path(name), modality="DX")


def of_head(result: Any, head: str) -> list[Any]:
    return [each for each in result.document.findings if each.head == head]


@pytest.mark.parametrize("reproducible", [False, True])
def test_both_heads_equal_the_original(
    asg_both_bundle: Path, original: dict[str, Any], reproducible: bool
) -> None:
    with Scorer.open(asg_both_bundle, site=None, threads=2, reproducible=reproducible) as scorer:
        for n, name in enumerate(IMAGES):
            result = score(scorer, name)
            prompts, tags = of_head(result, "prompts"), of_head(result, "tags")
            assert [each.key for each in prompts] == KEYS
            assert [each.key for each in tags] == TAGS
            logits = np.array([each.score.logit for each in prompts[:-1]])
            assert np.abs(logits - original["scores_scaled"][n]).max() <= 2e-5
            logits = np.array([each.score.logit for each in tags])
            assert np.abs(logits - original["tag_logits"][n]).max() <= 2e-5
            sigmoids = np.array([each.score.sigmoid for each in tags])
            assert np.abs(sigmoids - original["tag_probabilities"][n]).max() <= 5e-6
            assert all(each.score.sigmoid is None for each in prompts)
            grids = np.stack([result.grid(("tags", tag)) for tag in TAGS]).reshape(40, 196)
            assert np.abs(grids - original["tag_maps"][n]).max() <= 2e-6


def test_each_head_scores_as_in_a_bundle_of_its_own(
    scorer: Scorer, asg_bundle: Path, asg_tags_bundle: Path
) -> None:
    both = score(scorer)
    with Scorer.open(asg_bundle, site=None, threads=2) as prompts:
        alone = score(prompts)
    with Scorer.open(asg_tags_bundle, site=None, threads=2) as tags:
        tagged = score(tags)
    for key in PROMPTS:
        assert abs(both.scores["prompts", key].logit - alone.scores[key].logit) <= 2e-5
        assert np.abs(both.grid(("prompts", key)) - alone.grid(key)).max() <= 5e-6
    for tag in TAGS:
        assert abs(both.scores["tags", tag].logit - tagged.scores[tag].logit) <= 2e-5


def test_a_key_that_one_head_has_is_enough(scorer: Scorer) -> None:
    result = score(scorer)
    assert result.scores["short"] is result.scores["prompts", "short"]
    assert result.scores["stent"] is result.scores["tags", "stent"]
    named = result.heatmap(("tags", "stent"))
    assert np.array_equal(result.heatmap("stent"), named, equal_nan=True)
    assert not np.array_equal(result.heatmap("short"), named, equal_nan=True)


def test_a_key_of_both_heads_needs_its_head(scorer: Scorer) -> None:
    result = score(scorer)
    for ask in (lambda: result.scores["pneumothorax"], lambda: result.scores.get("pneumothorax"),
                lambda: result.grid("pneumothorax"), lambda: result.heatmap("pneumothorax"),
                lambda: scorer.prompts.origin("pneumothorax")):  # fmt: skip
        with pytest.raises(PromptError, match="several heads have a finding with this key") as refused:
            ask()
        assert refused.value.code == "prompt.ambiguous"
        assert "('prompts', 'pneumothorax') or ('tags', 'pneumothorax')" in str(refused.value)
    assert "pneumothorax" in result.scores
    assert result.scores["prompts", "pneumothorax"].sigmoid is None
    assert result.scores["tags", "pneumothorax"].sigmoid is not None
    assert not np.array_equal(result.grid(("prompts", "pneumothorax")), result.grid(("tags", "pneumothorax")))


def test_scores_can_be_gone_through_by_name(scorer: Scorer) -> None:
    result = score(scorer)
    assert len(result.scores) == len(KEYS) + len(TAGS)
    names = list(result.scores)
    assert names.count(("prompts", "pneumothorax")) == names.count(("tags", "pneumothorax")) == 1
    assert [name for name in names if isinstance(name, tuple)] == [
        ("prompts", "pneumothorax"),
        ("tags", "pneumothorax"),
    ]
    found = [(each.head, each.key, each.score) for each in result.document.findings]
    assert [result.scores[name] for name in names] == [item[2] for item in found]
    assert all(np.isfinite(result.grid(name)).all() for name in names)


@pytest.mark.parametrize(
    "name", [("abdomen", "pneumothorax"), ("prompts", "stent"), "nothing", ("pneumothorax",)]
)
def test_an_unknown_name_is_refused(scorer: Scorer, name: Any) -> None:
    result = score(scorer)
    assert name not in result.scores
    with pytest.raises(KeyError):
        result.scores[name]
    with pytest.raises(PromptError) as refused:
        result.heatmap(name)
    assert refused.value.code == "prompt.unknown"
    assert "tags: pneumothorax" in str(refused.value.expected)


def test_the_document_names_heads(scorer: Scorer) -> None:
    document = json.loads(json.dumps(score(scorer).to_json()))
    jsonschema.validate(document, result_schema())
    assert document["schema_version"] == 5
    assert [each["head"] for each in document["findings"]] == ["prompts"] * len(KEYS) + ["tags"] * len(TAGS)
    assert document["summaries"] == []


def test_prompts_are_edited_beside_a_fixed_set(scorer: Scorer) -> None:
    before = score(scorer)
    scorer.prompts.add("stent", "a stent in the chest")  # a key of the tags, which prompts had not
    scorer.prompts.remove("pneumothorax")  # the free head's, though the tags have it, too
    after = score(scorer)
    assert [each.key for each in of_head(after, "prompts")] == [*PROMPTS, "stent"]
    assert [each.key for each in of_head(after, "tags")] == TAGS
    assert after.scores["pneumothorax"] == before.scores["tags", "pneumothorax"]
    with pytest.raises(PromptError):
        after.scores["stent"]
    with pytest.raises(PromptError, match="exists already"):
        scorer.prompts.add("stent", "a stent once more")


def test_a_tag_is_not_edited(scorer: Scorer) -> None:
    for name in ("pneumonia", ("tags", "pneumothorax")):
        with pytest.raises(PromptError, match="one unit") as refused:
            scorer.prompts.remove(name)
        assert (refused.value.code, refused.value.artefact) == ("prompt.fixed-set", "tags")
    with pytest.raises(PromptError) as unknown:
        scorer.prompts.remove("nothing")
    assert unknown.value.code == "prompt.unknown"


def test_tags_are_scored_when_no_prompt_is_left(scorer: Scorer) -> None:
    for key in KEYS:
        scorer.prompts.remove(key)
    result = score(scorer)
    assert list(result.scores) == TAGS
    scorer.prompts.add("back", "pleural effusion")
    assert score(scorer).scores["back"].sigmoid is None


def test_what_a_site_keeps_names_its_head(asg_both_bundle: Path, tmp_path: Path) -> None:
    with Scorer.open(asg_both_bundle, site=tmp_path, threads=2) as scorer:
        scorer.prompts.add("stent", "a stent in the chest", keep=True)
        scorer.prompts.remove("pneumothorax", keep=True)
        expected = score(scorer)
    site = Site.open(tmp_path, Bundle.open(asg_both_bundle).hash)
    assert [(entry.head, entry.key) for entry in site.entries("prompt")] == [("prompts", "stent")]
    assert [(entry.head, entry.key) for entry in site.entries("removed-prompt")] == [
        ("prompts", "pneumothorax")
    ]
    with Scorer.open(asg_both_bundle, site=tmp_path, threads=2) as scorer:
        again = score(scorer)
    assert dict(again.scores) == dict(expected.scores)
    assert len(again.scores) == len(KEYS) + len(TAGS)


@pytest.mark.parametrize("head", ["tags", "abdomen"])
def test_a_site_that_edits_another_head_is_refused(asg_both_bundle: Path, tmp_path: Path, head: str) -> None:
    site = Site.open(tmp_path, Bundle.open(asg_both_bundle).hash)
    site.add("removed-prompt", head, "pneumothorax")
    with pytest.raises(PromptError, match="site directory changes findings") as refused:
        Scorer.open(asg_both_bundle, site=tmp_path)
    assert (refused.value.code, refused.value.artefact) == ("prompt.fixed-set", head)
    assert f'restore "pneumothorax" --head {head}' in str(refused.value.cure)


def test_exports_are_of_the_free_head(asg_both_bundle: Path, asg_bundle: Path, scorer: Scorer) -> None:
    data = scorer.prompts.export(["pneumothorax"])
    with Scorer.open(asg_bundle, site=None) as alone:  # the same text side, so the same bank
        assert [finding.head for finding in alone.prompts.import_(data)] == ["prompts"]
    with pytest.raises(PromptError) as refused:
        scorer.prompts.export(["stent"])
    assert refused.value.code == "prompt.unknown"


def test_exports_may_be_of_a_head_by_name(asg_both_bundle: Path, scorer: Scorer) -> None:
    rules = {head.name: head.bank for head in Bundle.open(asg_both_bundle).manifest.heads}
    prompts = [unpack(scorer.prompts.export(head=head), rules["prompts"], artefact="prompts")
               for head in ("prompts", None)]  # fmt: skip
    assert [bank.keys for bank in prompts] == [tuple(KEYS)] * 2
    tags = unpack(scorer.prompts.export(["stent", "edema"], head="tags"), rules["tags"], artefact="tags")
    assert tags.keys == ("stent", "edema")
    assert unpack(scorer.prompts.export(head="tags"), rules["tags"], artefact="tags").keys == tuple(TAGS)
    with pytest.raises(ScoringError) as refused:
        scorer.prompts.export(head="abdomen")
    assert refused.value.code == "score.head"
    with pytest.raises(PromptError) as unknown:
        scorer.prompts.export(["short"], head="tags")
    assert unknown.value.code == "prompt.unknown"


def copied(bundle: Path, folder: Path) -> Path:
    return Path(shutil.copytree(bundle, folder / "copy.bundle"))


@pytest.mark.parametrize("head", ["prompts", "tags"])
@pytest.mark.parametrize("what", ["logits", "maps"])
def test_golden_answers_are_held_per_head(
    asg_both_bundle: Path, tmp_path: Path, head: str, what: str
) -> None:
    copy = copied(asg_both_bundle, tmp_path)
    golden = copy / "golden" / "golden.safetensors"
    tensors = dict(safetensors.numpy.load(golden.read_bytes()))
    tensors[f"{what}.{head}"] = tensors[f"{what}.{head}"] + np.float32(1e-3)
    factory.relist(copy, "golden/golden.safetensors", safetensors.numpy.save(tensors))
    with pytest.raises(BundleError, match=f"head {head}") as refused:
        Scorer.open(copy, site=None)
    assert refused.value.code == "bundle.golden"


@pytest.mark.parametrize("missing", ["logits.tags", "maps.prompts"])
def test_golden_answers_of_every_head_are_required(
    asg_both_bundle: Path, tmp_path: Path, missing: str
) -> None:
    copy = copied(asg_both_bundle, tmp_path)
    golden = copy / "golden" / "golden.safetensors"
    tensors = dict(safetensors.numpy.load(golden.read_bytes()))
    tensors["logits"] = tensors.pop(missing)
    factory.relist(copy, "golden/golden.safetensors", safetensors.numpy.save(tensors))
    with pytest.raises(BundleError) as refused:
        Scorer.open(copy, site=None)
    assert refused.value.code == "bundle.format"


@pytest.mark.parametrize(("head", "other"), [("prompts", "tags"), ("tags", "prompts")])
def test_a_bank_of_the_other_head_is_foreign(
    asg_both_bundle: Path, tmp_path: Path, head: str, other: str
) -> None:
    copy = copied(asg_both_bundle, tmp_path)
    stolen = (copy / "banks" / f"{other}.safetensors").read_bytes()
    factory.relist(copy, f"banks/{head}.safetensors", stolen)
    with pytest.raises(BundleError) as refused:
        Scorer.open(copy, site=None)
    assert (refused.value.code, refused.value.artefact) == (
        "bundle.foreign-bank",
        f"banks/{head}.safetensors",
    )


def test_a_changed_byte_in_one_bank_is_refused(asg_both_bundle: Path, tmp_path: Path) -> None:
    copy = copied(asg_both_bundle, tmp_path)
    path = copy / "banks" / "tags.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(BundleError) as refused:
        Scorer.open(copy, site=None)
    assert (refused.value.code, refused.value.artefact) == ("bundle.hash", "banks/tags.safetensors")


def test_tags_in_another_order_than_their_bank_are_refused(asg_both_bundle: Path, tmp_path: Path) -> None:
    def swap(document: dict[str, Any]) -> None:
        document["findings"][-2:] = document["findings"][-2:][::-1]

    copy = copied(asg_both_bundle, tmp_path)
    factory.edited(copy, swap)
    with pytest.raises(BundleError) as refused:
        Scorer.open(copy, site=None)
    assert (refused.value.code, refused.value.artefact) == ("bundle.foreign-bank", "banks/tags.safetensors")


def test_verify_reports_every_head(asg_both_bundle: Path) -> None:
    report = verify(asg_both_bundle, site=None)
    assert [head.head for head in report.golden.heads] == ["prompts", "tags"]
    assert all(0 < head.score_error <= head.score_tolerance for head in report.golden.heads)
    assert report.golden.text_error is not None
    parity = json.loads((asg_both_bundle / "parity.json").read_bytes())
    assert [(head["head"], head["findings"]) for head in parity["heads"]] == [("prompts", 7), ("tags", 40)]
    alone = "a prompt alone instead of with the others"
    varied = [[item["varied"] for item in head["noise"]] for head in parity["heads"]]
    assert [alone in each for each in varied] == [True, False]


def test_a_head_is_chosen_by_name_or_is_the_only_one(asg_both_bundle: Path, asg_bundle: Path) -> None:
    both, one = Bundle.open(asg_both_bundle).manifest, Bundle.open(asg_bundle).manifest
    assert require_head(one).name == require_head(both, "prompts").name == "prompts"
    for manifest, name in ((both, None), (both, "abdomen"), (one, "tags"), (one, "")):
        with pytest.raises(ScoringError, match="no such" if name is not None else "several") as refused:
            require_head(manifest, name)
        assert refused.value.code == "score.head"
        assert refused.value.found == (None if name is None else repr(name))
