"""Findings added and removed while scoring, kept in the site directory, carried to another machine."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import msgspec
import numpy as np
import pytest

from promptray import Bundle, BundleError, PromptError, Scorer
from promptray.cli import run
from promptray.runtime.bank_file import pack, unpack
from promptray.runtime.bundle.manifest import Code
from promptray.runtime.prompts import PromptBank
from promptray.runtime.site import Site
from promptray.runtime.verify import verify
from tests.carzero_tiny import FOLDER, PROMPTS

IMAGE = FOLDER / "images" / "wide.png"
KEYS = list(PROMPTS)


def scores(scorer: Scorer) -> dict[str, float]:
    return {key: score.logit for key, score in scorer.score(IMAGE, modality="DX").scores.items()}


def test_a_prompt_added_at_run_time_scores_like_one_of_the_bundle(carzero_bundle: Path) -> None:
    with Scorer.open(carzero_bundle, site=None) as scorer:
        before = scores(scorer)
        finding = scorer.prompts.add("again", PROMPTS[KEYS[0]])
        after = scores(scorer)
        result = scorer.score(IMAGE, modality="DX")
    assert finding.key == "again"
    assert after["again"] == pytest.approx(before[KEYS[0]], abs=2e-5)
    assert {key: after[key] for key in KEYS} == pytest.approx(before, abs=2e-5)
    assert {item.key: item.origin for item in result.document.findings}["again"] == "session"
    assert "prompt-duplicate" in [notice.code for notice in result.notices]


def test_the_template_words_a_bare_name(carzero_bundle: Path) -> None:
    with Scorer.open(carzero_bundle, site=None) as scorer:
        assert scorer.prompts.add("rib fracture").prompts == ["There is rib fracture"]


def test_what_is_kept_is_there_next_time_and_shown_as_the_sites(carzero_bundle: Path, tmp_path: Path) -> None:
    code = Code(value="20297003", scheme="SCT", meaning="Rib fracture")
    with Scorer.open(carzero_bundle, site=tmp_path) as scorer:
        scorer.prompts.add("rib fracture", "There is rib fracture.", display="Rib", code=code, keep=True)
        scorer.prompts.remove(KEYS[1], keep=True)
        now = scores(scorer)
    with Scorer.open(carzero_bundle, site=tmp_path) as scorer:
        result = scorer.score(IMAGE, modality="DX")
        assert scores(scorer) == now
    finding = result.document.findings[-1]
    assert (finding.key, finding.display, finding.origin, finding.code) == (
        "rib fracture",
        "Rib",
        "site",
        code,
    )
    assert KEYS[1] not in result.scores
    assert result.document.bundle.site_revision
    with Scorer.open(carzero_bundle, site=None) as scorer:
        assert list(scores(scorer)) == KEYS, "the bundle itself never changes"


def test_a_kept_prompt_can_be_taken_away_again(carzero_bundle: Path, tmp_path: Path) -> None:
    for _ in range(2):
        with Scorer.open(carzero_bundle, site=tmp_path) as scorer:
            scorer.prompts.add("new", "There is something new", keep=True)
            scorer.prompts.remove("new", keep=True)
        with Scorer.open(carzero_bundle, site=tmp_path) as scorer:
            assert "new" not in scorer.prompts


def test_a_removed_finding_can_be_worded_anew_at_the_site(carzero_bundle: Path, tmp_path: Path) -> None:
    with Scorer.open(carzero_bundle, site=tmp_path) as scorer:
        scorer.prompts.remove(KEYS[0], keep=True)
        scorer.prompts.add(KEYS[0], "There is another wording", keep=True)
    with Scorer.open(carzero_bundle, site=tmp_path) as scorer:
        assert scorer.prompts.origin(KEYS[0]) == "site"
        assert list(scores(scorer))[-1] == KEYS[0]


def test_without_a_text_graph_prompts_are_imported(
    carzero_bundle: Path, carzero_bundle_no_text: Path, tmp_path: Path
) -> None:
    with Scorer.open(carzero_bundle, site=None) as full:
        full.prompts.add("carried", "There is a carried finding")
        expected = scores(full)["carried"]
        data = full.prompts.export(["carried"])
    with Scorer.open(carzero_bundle_no_text, site=tmp_path) as edge:
        with pytest.raises(PromptError) as refusal:
            edge.prompts.add("carried", "There is a carried finding")
        assert refusal.value.code == "prompt.no-text-graph"
        assert "promptray prompts" in str(refusal.value.cure)
        edge.prompts.import_(data, keep=True)
        assert scores(edge)["carried"] == pytest.approx(expected, abs=2e-5)
    with Scorer.open(carzero_bundle_no_text, site=tmp_path) as edge:
        assert "carried" in edge.prompts


def test_an_import_is_all_or_nothing(carzero_bundle: Path) -> None:
    with Scorer.open(carzero_bundle, site=None) as scorer:
        scorer.prompts.add("b", "There is b finding")
        data = scorer.prompts.export(["b"])
        both = scorer.prompts.export([KEYS[0], "b"])
        scorer.prompts.remove("b")
        with pytest.raises(PromptError) as refusal:
            scorer.prompts.import_(both)
        assert refusal.value.code == "prompt.exists"
        assert "b" not in scorer.prompts
        with pytest.raises(BundleError):
            scorer.prompts.import_(data[:-9])


@pytest.mark.parametrize("prompt", ["Edema", "normal.", "T12. fracture", "..."])
def test_a_prompt_of_which_nothing_is_left_is_refused(carzero_bundle: Path, prompt: str) -> None:
    with Scorer.open(carzero_bundle, site=None) as scorer:
        with pytest.raises(PromptError) as refusal:
            scorer.prompts.add("x", prompt)
        assert refusal.value.code == "prompt.empty"
        assert "x" not in scorer.prompts
        scorer.prompts.add("x", prompt, allow_empty=True)
        assert "x" in scorer.prompts


@pytest.mark.parametrize(
    "key",
    [
        "",
        " lead",
        "a/b",
        "a\\b",
        "tab\t",
        "line\n",
        "a\u200bb",
        "e\u0301",
        "a\x85",
        "a\ud800",
        "x" * 129,
        None,
        3,
    ],
)
def test_a_bad_key_is_refused(carzero_bundle: Path, key: str) -> None:
    with Scorer.open(carzero_bundle, site=None) as scorer:
        with pytest.raises(PromptError) as refusal:
            scorer.prompts.add(key, "There is something")
        assert refusal.value.code == "prompt.invalid"


def test_keys_are_unique_and_known(carzero_bundle: Path) -> None:
    with Scorer.open(carzero_bundle, site=None) as scorer:
        with pytest.raises(PromptError, match=r"prompt\.exists"):
            scorer.prompts.add(KEYS[0], "There is something")
        for call in (scorer.prompts.remove, scorer.prompts.origin, lambda key: scorer.prompts.export([key])):
            with pytest.raises(PromptError, match=r"prompt\.unknown"):
                call("absent")
        with pytest.raises(PromptError, match=r"prompt\.unknown"):
            scorer.score(IMAGE, modality="DX").heatmap("absent")
        with pytest.raises(PromptError):
            scorer.prompts.add("kept", "There is something", keep=True)  # opened without a site
        assert "kept" not in scorer.prompts


def test_with_no_finding_left_there_is_no_score(carzero_bundle: Path) -> None:
    with Scorer.open(carzero_bundle, site=None) as scorer:
        for key in KEYS:
            scorer.prompts.remove(key)
        with pytest.raises(PromptError):
            scorer.score(IMAGE, modality="DX")


def test_a_site_prompt_of_another_bundle_is_refused(
    carzero_bundle: Path, reference_bundle: Path, tmp_path: Path
) -> None:
    """Its payload is whole and its index sealed, but it was encoded with another model."""
    with Scorer.open(reference_bundle, site=None) as other:
        payload = other.prompts.export(["pneumonia"])
    Site.open(tmp_path, Bundle.open(carzero_bundle).hash).add("prompt", "findings", "pneumonia", payload)
    with pytest.raises(BundleError) as refusal:
        Scorer.open(carzero_bundle, site=tmp_path)
    assert refusal.value.code == "bundle.foreign-bank"


def test_a_site_entry_under_another_key_is_refused(carzero_bundle: Path, tmp_path: Path) -> None:
    with Scorer.open(carzero_bundle, site=None) as scorer:
        payload = scorer.prompts.export(KEYS[:1])
        both = scorer.prompts.export(KEYS[:2])
        digest = scorer.bundle.hash
    for n, content in enumerate((payload, both)):
        root = tmp_path / str(n)
        root.mkdir()
        Site.open(root, digest).add("prompt", "findings", "pneumothorax", content)
        with pytest.raises(BundleError) as refusal:
            Scorer.open(carzero_bundle, site=root)
        assert refusal.value.code == "site.corrupt"


def test_no_bit_of_an_exported_prompt_may_change(carzero_bundle: Path) -> None:
    """Exports travel alone to other machines; 200 seeded single-bit flips, none is imported."""
    with Scorer.open(carzero_bundle, site=None) as scorer:
        scorer.prompts.add("carried", "There is a carried finding")
        data = scorer.prompts.export(["carried"])
        scorer.prompts.remove("carried")
        random = np.random.default_rng(11)
        for bit in random.choice(len(data) * 8, 200, replace=False):
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << (bit % 8)
            with pytest.raises(BundleError):
                scorer.prompts.import_(bytes(changed))
        assert "carried" not in scorer.prompts


def test_display_name_and_code_travel_with_a_prompt(carzero_bundle: Path) -> None:
    code = Code(value="20297003", scheme="SCT", meaning="Rib fracture")
    with Scorer.open(carzero_bundle, site=None) as scorer:
        scorer.prompts.add("rib", "There is rib fracture.", display="Rib", code=code)
        data = scorer.prompts.export(["rib"])
        scorer.prompts.remove("rib")
        (finding,) = scorer.prompts.import_(data)
    assert (finding.display, finding.code) == ("Rib", code)


def test_a_site_can_always_be_opened_again(carzero_bundle: Path, tmp_path: Path) -> None:
    """Removing for a session and keeping another prompt of that key must not leave the site with two."""
    with Scorer.open(carzero_bundle, site=tmp_path) as scorer:
        scorer.prompts.remove(KEYS[0])
        with pytest.raises(PromptError) as refusal:
            scorer.prompts.add(KEYS[0], "There is another wording", keep=True)
        assert refusal.value.code == "prompt.exists"
        assert "prompts BUNDLE remove" in str(refusal.value.cure)
    with Scorer.open(carzero_bundle, site=tmp_path) as scorer:
        assert [finding.key for finding in scorer.prompts] == KEYS


def test_a_change_made_meanwhile_is_not_overlooked(carzero_bundle: Path, tmp_path: Path) -> None:
    """A result's site revision names exactly the findings it was scored with."""
    with Scorer.open(carzero_bundle, site=tmp_path) as one, Scorer.open(carzero_bundle, site=tmp_path) as two:
        two.prompts.add("of two", "There is a finding of two", keep=True)
        with pytest.raises(BundleError) as refusal:
            one.prompts.add("of one", "There is a finding of one", keep=True)
        assert refusal.value.code == "site.changed"
        assert "of one" not in one.prompts
        assert one.score(IMAGE, modality="DX").document.bundle.site_revision == 0


def test_an_imported_prompt_must_read_as_it_is_written(carzero_bundle: Path) -> None:
    """An export whose hash is right, made elsewhere by another program."""
    with Scorer.open(carzero_bundle, site=None) as scorer:
        own = unpack(
            scorer.prompts.export(KEYS[:1]), scorer.prompts.state.heads[0].bank.rule, artefact="x"
        ).entries[0]
        turned = msgspec.structs.replace(own.prompts[0], text="There is \u202eno pneumonia.")
        entry = dataclasses.replace(own, key="turned", prompts=(turned,))
        data = pack(PromptBank(scorer.prompts.state.heads[0].bank.rule, [entry]))
        with pytest.raises(PromptError) as refusal:
            scorer.prompts.import_(data)
        assert refusal.value.code == "prompt.invalid"
        assert "U+202E" in str(refusal.value.found)


def test_verify_finds_a_site_that_cannot_be_opened(carzero_bundle: Path, tmp_path: Path) -> None:
    with Scorer.open(carzero_bundle, site=None) as scorer:
        payload = scorer.prompts.export(KEYS[:1])
        digest = scorer.bundle.hash
    Site.open(tmp_path, digest).add("prompt", "findings", KEYS[0], payload)
    with pytest.raises(PromptError) as refusal:
        verify(carzero_bundle, site=str(tmp_path))
    assert refusal.value.code == "prompt.exists"


@pytest.mark.parametrize("damaged", [False, True])
def test_the_printed_cure_mends_a_site(
    carzero_bundle: Path, tmp_path: Path, damaged: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """A damaged prompt is removed by the command that the refusal names; so is a sound one."""
    with Scorer.open(carzero_bundle, site=tmp_path) as scorer:
        scorer.prompts.add("rib", "There is rib fracture.", keep=True)
        digest = scorer.bundle.hash
    if damaged:
        payload = next((tmp_path / digest / "entries").iterdir())
        payload.write_bytes(payload.read_bytes()[:-1] + b"?")
        assert run(["prompts", str(carzero_bundle), "list", "--site", str(tmp_path)]) == 1
        assert 'remove "rib"' in capsys.readouterr().err
    assert run(["prompts", str(carzero_bundle), "remove", "rib", "--site", str(tmp_path)]) == 0
    assert run(["prompts", str(carzero_bundle), "list", "--site", str(tmp_path)]) == 0


def test_a_removed_finding_can_be_restored(carzero_bundle: Path, tmp_path: Path) -> None:
    arguments = ["--site", str(tmp_path)]
    assert run(["prompts", str(carzero_bundle), "remove", KEYS[0], *arguments]) == 0
    with Scorer.open(carzero_bundle, site=tmp_path) as scorer:
        assert KEYS[0] not in scorer.prompts
    assert run(["prompts", str(carzero_bundle), "restore", KEYS[0], *arguments]) == 0
    with Scorer.open(carzero_bundle, site=tmp_path) as scorer:
        assert [finding.key for finding in scorer.prompts] == KEYS
    assert run(["prompts", str(carzero_bundle), "restore", KEYS[0], *arguments]) == 1
