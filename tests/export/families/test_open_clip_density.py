"""BiomedCLIP as the density study ran it: its prompts, 20 tokens, its pixels; against arithmetic in double.

Source: Molina-Roman et al., CBMS 2025, arXiv 2506.13964: the template `` The breast is ``, softmax over four
classes with the model's scale, images squashed and not normalised.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from promptray import PromptError, Scorer
from promptray.export.build import build
from promptray.export.checkpoint import load_checkpoint, tensors
from promptray.export.families.base import LoadedModel
from promptray.export.families.open_clip import FAMILY
from promptray.runtime.errors import BuildError
from promptray.runtime.packs import read_pack
from promptray.runtime.text import TextEncoder
from tests import open_clip_arithmetic as arithmetic
from tests.open_clip_tiny import (
    FOLDER,
    IMAGES,
    LOGIT,
    SOFTMAX,
    WEIGHTS,
    copy_folder,
    image_path,
    shared_bundle,
    write_recipe,
)

#: As published, the leading space included.
TEMPLATE = " The breast is {}"
STRINGS = (
    "Fatty predominance",
    "Characterized by scattered areas of pattern density",
    "Heterogeneously dense",
    "Extremely dense",
)
OPTIONS = {"preprocessing": "density-study", "context": 20}
RECIPE: dict[str, Any] = {"pack": "birads-density", "relation": "ordinal", "model_options": OPTIONS}
HEADS, SEP, PIXELS = 4, 3, 5e-6


@pytest.fixture(scope="module")
def study() -> LoadedModel:
    return FAMILY.load(FOLDER / WEIGHTS, None, OPTIONS)


@pytest.fixture(scope="module")
def scorer(shared_dir: Path) -> Any:
    with Scorer.open(shared_bundle(shared_dir, "open-clip-density", **RECIPE, findings=None), site=None) as s:
        yield s


def ids(model: LoadedModel, text: str) -> list[int]:
    return TextEncoder(model.text.rule, model.text.tokenizer).encode(text).arrays["input_ids"][0].tolist()


def plain(study: LoadedModel, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits (B, 4) and maps (B, 4, 14, 14), float64."""
    state = dict(tensors(load_checkpoint(FOLDER / WEIGHTS)))
    texts = torch.stack([arithmetic.class_vector(state, [ids(study, text)], HEADS) for text in wordings()])
    vectors, patches = arithmetic.image_vectors(state, pixels, HEADS)
    maps = (patches @ texts.T).transpose(1, 2).unflatten(-1, (14, 14))
    return state["logit_scale"].double().exp() * vectors @ texts.T, maps


def wordings() -> list[str]:
    return [TEMPLATE.replace("{}", string) for string in STRINGS]


def test_the_pack_is_the_published_template_filled() -> None:
    pack = read_pack("birads-density")
    assert [each.prompts for each in pack.findings] == [[text.strip()] for text in wordings()]


def test_the_leading_space_changes_no_id(study: LoadedModel) -> None:
    """Cleaning drops it, and the tokenizer alone would, too."""
    raw = Tokenizer.from_str(study.text.tokenizer.decode())
    for text in wordings():
        assert text.startswith(" ")
        assert ids(study, text) == ids(study, text.strip())
        assert raw.encode(text).ids == raw.encode(text.strip()).ids


def test_a_context_of_20_cuts_what_is_longer_and_nothing_else(study: LoadedModel, tmp_path: Path) -> None:
    """The tiny vocabulary spells words out, so it cuts; one that has the words reads all of them."""
    whole = FAMILY.load(FOLDER / WEIGHTS, None, {})
    path = copy_folder(tmp_path)
    words = sorted({word for text in wordings() for word in text.lower().split()})
    lines = (tmp_path / "vocab.txt").read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line not in words]
    content = [*kept[: len(lines) - len(words)], *words]
    (tmp_path / "vocab.txt").write_text("\n".join(content) + "\n", encoding="utf-8")
    wordy = FAMILY.load(path, None, OPTIONS)
    cut = 0
    for text in wordings():
        full = ids(whole, text)
        assert ids(study, text) == (full if len(full) <= 20 else [*full[:19], SEP])
        cut += len(full) > 20
        assert ids(wordy, text) == ids(FAMILY.load(path, None, {}), text)
        assert len(ids(wordy, text)) == len(text.split()) + 2 <= 12
    assert cut, "none was long enough for the cut to be seen"
    assert full[-1] == SEP
    assert study.text is not None
    assert whole.text is not None
    assert (study.text.rule.context, whole.text.rule.context) == (20, 256)


def test_the_scorer_equals_plain_arithmetic(scorer: Scorer, study: LoadedModel) -> None:
    pixels = torch.cat([arithmetic.study_pixels(image_path(name)) for name in IMAGES])
    logits, maps = plain(study, pixels)
    shares = logits.softmax(dim=1)
    keys = [finding.key for finding in read_pack("birads-density").findings]
    for number, name in enumerate(IMAGES):
        prepared = scorer.prepare(image_path(name), modality="DX")
        assert np.abs(prepared.network_input.pixels - pixels[number : number + 1].numpy()).max() <= PIXELS
        result = scorer.infer(prepared)
        assert list(result.scores) == keys
        scores = list(result.scores.values())
        assert np.abs([each.logit for each in scores] - logits[number].numpy()).max() <= LOGIT
        assert np.abs([each.softmax for each in scores] - shares[number].numpy()).max() <= SOFTMAX
        grids = np.stack([result.grid(key) for key in keys])
        assert np.abs(grids - maps[number].numpy()).max() <= 1e-5
        assert result.summary is not None
        rank = float(shares[number] @ torch.arange(1.0, 5.0).double())
        assert result.summary.expected_rank == pytest.approx(rank, abs=1e-4)


def test_the_reference_cuts_where_the_bundle_cuts(study: LoadedModel) -> None:
    encoder = TextEncoder(study.text.rule, study.text.tokenizer)
    pixels = arithmetic.study_pixels(image_path("tall"))
    expected, _ = plain(study, pixels)
    answers = study.heads[0].reference(
        pixels.float(), [encoder.encode_finding([text]) for text in wordings()]
    )
    assert np.abs(answers.logits - expected.numpy()).max() <= LOGIT


def test_another_context_is_another_bank(study: LoadedModel, scorer: Scorer, shared_dir: Path) -> None:
    """Prompts cut at 20 tokens must not be mixed with prompts that were not."""
    other = {**RECIPE, "model_options": {"preprocessing": "density-study"}, "findings": None}
    with Scorer.open(shared_bundle(shared_dir, "open-clip-density-256", **other), site=None) as whole:
        assert whole.bundle.manifest.heads[0].bank.identity["context"] == "256"
        assert scorer.bundle.manifest.heads[0].bank.identity["context"] == "20"
        assert whole.bundle.manifest.heads[0].bank.id != scorer.bundle.manifest.heads[0].bank.id


def test_a_scale_is_one_unit(scorer: Scorer) -> None:
    """A step more or less would shift every place, and the group "dense" would lose one."""
    before = [finding.key for finding in scorer.prompts]
    assert scorer.bundle.manifest.heads[0].set == "fixed"
    for edit in (
        lambda: scorer.prompts.add_pack("birads-density"),
        lambda: scorer.prompts.remove(before[0]),
    ):
        with pytest.raises(PromptError, match="form one unit") as refusal:
            edit()
        assert refusal.value.code == "prompt.fixed-set"
    assert [finding.key for finding in scorer.prompts] == before


def test_the_pack_wants_its_order(tmp_path: Path, shared_dir: Path) -> None:
    path = write_recipe(tmp_path, **{**RECIPE, "relation": "exclusive", "findings": None})
    with pytest.raises(BuildError, match="expected relation: ordinal"):
        build(path, tmp_path / "new.bundle", cache=shared_dir / "cache")


@pytest.mark.parametrize("context", [2, 0, -1, 513, True, "20", 20.0, None])
def test_a_context_that_cannot_be_is_refused(context: object) -> None:
    with pytest.raises(BuildError) as refusal:
        FAMILY.load(FOLDER / WEIGHTS, None, {"context": context})
    assert refusal.value.code == "recipe.invalid"
    assert refusal.value.artefact == "model_options.context"
    assert "3 to 512 tokens" in str(refusal.value)
