"""A calibration is of one wording: under the same key another one gets none, however it came there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from promptray.runtime.active_prompts import ActivePrompts
from promptray.runtime.bank_file import pack
from promptray.runtime.prompts import PromptBank
from promptray.runtime.result import Result
from promptray.runtime.scorer import Scorer
from promptray.runtime.site import Site
from promptray.runtime.site_calibration import keep_calibrations
from tests.fuzz.small_bundle import write_small
from tests.runtime.test_site_calibration import made, notices

KEY, WORDING = "rib fracture", "There is a rib fracture."
PIXELS = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small")
    write_small(folder)
    return folder / "small.bundle"


@pytest.fixture
def site(bundle: Path, tmp_path: Path) -> Path:
    """A site with a prompt of its own that is calibrated."""
    with Scorer.open(bundle, site=tmp_path) as scorer:
        scorer.prompts.add(KEY, WORDING, keep=True)
        file = made(scorer, KEY)
        keep_calibrations(Site.open(tmp_path, scorer.bundle.hash), file.head, [file])
        assert score(scorer).scores[KEY].probability is not None
    return tmp_path


@pytest.fixture
def scorer(bundle: Path, site: Path) -> Iterator[Scorer]:
    with Scorer.open(bundle, site=site) as opened:
        yield opened


def score(scorer: Scorer) -> Result:
    return scorer.score(PIXELS, modality="DX")


def exported(bundle: Path, wording: str, **options: bool) -> bytes:
    """The finding as another installation of the same model encodes and exports it."""
    with Scorer.open(bundle, site=None) as elsewhere:
        elsewhere.prompts.add(KEY, wording, **options)
        return elsewhere.prompts.export([KEY])


def other_tensors(bundle: Path) -> bytes:
    """The same wording, one bit of whose encoding is another."""
    with Scorer.open(bundle, site=None) as elsewhere:
        elsewhere.prompts.add(KEY, WORDING)
        state = elsewhere.prompts.state
        entry, rule = state.find(KEY).entry, state.of(state.find(KEY).finding.head).head.bank
    name, tensor = next(iter(entry.tensors.items()))
    changed = np.array(tensor, order="C")
    changed.reshape(-1).view(np.uint8)[0] ^= 1
    return pack(PromptBank(rule, [replace(entry, tensors={**entry.tensors, name: changed})]))


CHANGES: dict[str, Callable[[ActivePrompts, Path], object]] = {
    "other words": lambda prompts, bundle: prompts.add(KEY, "There is a fractured rib."),
    "other words, kept": lambda prompts, bundle: prompts.add(KEY, "There is a fractured rib.", keep=True),
    "the same words written otherwise": lambda prompts, bundle: prompts.add(KEY, WORDING.upper()),
    "imported": lambda prompts, bundle: prompts.import_(exported(bundle, "There is a fractured rib.")),
    "imported with another encoding": lambda prompts, bundle: prompts.import_(other_tensors(bundle)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_another_wording_under_its_key_has_no_calibration(bundle: Path, scorer: Scorer, change: str) -> None:
    scorer.prompts.remove(KEY, keep=True)
    CHANGES[change](scorer.prompts, bundle)
    found = score(scorer)
    one = found.scores[KEY]
    assert (one.probability, one.threshold, one.flag, one.calibration) == (None, None, None, None)
    assert list(notices(found)) == ["calibration-wording"]
    assert KEY in notices(found)["calibration-wording"]
    assert scorer.prompts.state.thresholds_of(scorer.prompts.state.find(KEY).finding.head) == {}


@pytest.mark.parametrize("keep", [False, True])
def test_the_same_prompt_comes_back_with_its_calibration(
    bundle: Path, scorer: Scorer, site: Path, keep: bool
) -> None:
    before = score(scorer).scores[KEY]
    data = scorer.prompts.export([KEY])
    scorer.prompts.remove(KEY, keep=True)
    assert KEY not in score(scorer).scores
    scorer.prompts.import_(data, keep=keep)
    assert score(scorer).scores[KEY] == before
    with Scorer.open(bundle, site=site) as later:
        assert (KEY in later.prompts) == keep


def test_an_export_carries_no_calibration(bundle: Path, scorer: Scorer, tmp_path: Path) -> None:
    """Labels of one site say nothing of another."""
    data = scorer.prompts.export([KEY])
    other = tmp_path / "other"
    other.mkdir()
    with Scorer.open(bundle, site=other) as elsewhere:
        elsewhere.prompts.import_(data, keep=True)
        found = score(elsewhere)
    assert found.scores[KEY].probability is None
    assert found.scores[KEY].logit == pytest.approx(score(scorer).scores[KEY].logit)
    assert notices(found) == {}
