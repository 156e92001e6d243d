"""The example of docs/families.md is a family: it is what the page shows, it builds, it scores as it says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from promptray import Scorer
from promptray.cli import run
from promptray.export import families, onnx_graph
from promptray.export.build import build
from promptray.export.families.base import FamilyFacts
from promptray.export.tokenizer import BertFolder, bert_files, read_bert_folder
from promptray.runtime.errors import BuildError, PromptError
from promptray.runtime.verify import verify
from tests import carzero_tiny, example_family

ROOT = Path(__file__).parents[3]
TEXT_MODEL = carzero_tiny.FOLDER / "text_model"
WIDTH, WORDS = 64, 400
FACTS = FamilyFacts(
    name="example",
    summary="The example of docs/families.md",
    layout="a state dict with 'patches.*', 'norm.*' and 'words.weight'; a text model folder",
    options={},
    module="tests.example_family",
    source_files=bert_files,
)


def test_the_page_shows_the_file() -> None:
    source = Path(example_family.__file__).read_text(encoding="utf-8")
    shown = source.split("# begin: export/families/example.py\n")[1].split("\n\n# end\n")[0]
    page = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    assert f"```python\n{shown.strip()}\n```\n" in page


def random_state(seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {
        "patches.weight": (WIDTH, 3, 8, 8), "patches.bias": (WIDTH,), "norm.weight": (WIDTH,),
        "norm.bias": (WIDTH,), "words.weight": (WORDS, WIDTH), "temperature": (),
    }  # fmt: skip
    return {key: torch.randn(shape, generator=generator) for key, shape in shapes.items()}


def write(folder: Path, state: dict[str, torch.Tensor], **changes: Any) -> Path:
    torch.save(state, folder / "example.pt")
    carzero_tiny.write_golden_images(folder / "golden")
    recipe = {
        "recipe_version": 1,
        "name": "example",
        "family": "example",
        "checkpoint": "example.pt",
        "text_model": str(TEXT_MODEL),
        "model": {"licence": "none", "intended_use": "tests", "training_data": "none"},
        "door": {"modalities": ["DX"]},
        "findings": [{"key": "edema"}, {"key": "both", "prompt": ["pleural effusion", "fluid"]}],
        "golden": {"images": "golden", "licence": "CC0"},
        **changes,
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    return folder / "recipe.yaml"


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "FAMILIES", (*families.FAMILIES, FACTS))


def plain_logits(state: dict[str, torch.Tensor], pixels: Any, texts: list[list[list[int]]]) -> Any:
    """Score one image by NumPy in double: no module of the family, no torch."""
    weights = {key: value.double().numpy() for key, value in state.items()}
    blocks = pixels.astype(np.float64).reshape(3, 4, 8, 4, 8).transpose(1, 3, 0, 2, 4).reshape(16, -1)
    x = blocks @ weights["patches.weight"].reshape(WIDTH, -1).T + weights["patches.bias"]
    x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-5)
    image = unit((x * weights["norm.weight"] + weights["norm.bias"]).mean(axis=0))

    def vector(wordings: list[list[int]]) -> Any:
        return unit(np.mean([unit(weights["words.weight"][ids].mean(axis=0)) for ids in wordings], axis=0))

    return np.array([image @ vector(wordings) for wordings in texts])


def unit(vector: Any) -> Any:
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_example_builds_and_scores_as_plain_arithmetic(tmp_path: Path, seed: int) -> None:
    state = random_state(seed)
    bundle = build(write(tmp_path, state), tmp_path / "out.bundle", cache=tmp_path / "cache").path
    assert verify(bundle, site=None).golden.heads[0].score_error <= 2e-6
    with Scorer.open(bundle, site=None, threads=1) as scorer:
        image = tmp_path / "golden" / "03.png"
        pixels = scorer.prepare(image, modality="DX").network_input.pixels[0]
        wordings = [["There is edema."], ["pleural effusion", "fluid"]]
        ids = [[scorer_ids(bundle, text) for text in texts] for texts in wordings]
        found = [score.logit for score in scorer.score(image, modality="DX").scores.values()]
        assert np.abs(np.array(found) - plain_logits(state, pixels, ids)).max() <= 2e-6
        scorer.prompts.add("nodule")
        assert len(scorer.score(image, modality="DX").scores) == 3


def scorer_ids(bundle: Path, text: str) -> list[int]:
    from tokenizers import Tokenizer

    found: list[int] = Tokenizer.from_file(str(bundle / "tokenizer.json")).encode(text).ids
    return found


def test_a_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    state = random_state(0)
    state["norm.weights"] = state.pop("norm.weight")
    with pytest.raises(BuildError, match=r"missing norm.weight \(nearest there: norm.weights"):
        build(write(tmp_path, state), tmp_path / "out.bundle", cache=tmp_path / "cache")
    with pytest.raises(BuildError, match="no tensor of this checkpoint"):
        build(write(tmp_path, {}), tmp_path / "other.bundle", cache=tmp_path / "cache")


def test_a_tokenizer_that_the_runtime_refuses_is_refused_before_any_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A family that brings a published ``tokenizer.json`` as it is."""
    published = Tokenizer.from_str(read_bert_folder(TEXT_MODEL).tokenizer_json(context=16).decode())
    published.normalizer = normalizers.Replace(Regex(r"\s+"), " ")
    content = published.to_str().encode()
    monkeypatch.setattr(BertFolder, "tokenizer_json", lambda folder, *, context: content)
    monkeypatch.setattr(onnx_graph, "export_graph", lambda *side: pytest.fail("exported"))
    with pytest.raises(BuildError, match="regular expressions") as refusal:
        build(write(tmp_path, random_state(0)), tmp_path / "out.bundle", cache=tmp_path / "cache")
    assert refusal.value.code == "text-model.invalid"
    assert "tokenizer" in str(refusal.value.cure)


def test_a_tokenizer_of_one_special_token_serves_from_build_to_added_prompts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As SigLIP's: pieces of SentencePiece, and ``</s>`` after a text."""
    words = ["▁there", "▁is", "▁edema", "▁pneumonia", "▁", *"abcdefghijklmnopqrstuvwxyz"]
    tokenizer = Tokenizer(models.Unigram([("</s>", 0.0), ("<unk>", 0.0), *((w, -1.0) for w in words)], 1))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 0)])
    content = tokenizer.to_str().encode()
    monkeypatch.setattr(BertFolder, "tokenizer_json", lambda folder, *, context: content)
    state, recipe = random_state(2), tmp_path / "recipe.yaml"
    findings = [{"key": "edema", "prompt": "There is edema"}, {"key": "pneumonia", "prompt": "pneumonia"}]
    write(tmp_path, state, findings=findings)
    bundle = tmp_path / "out.bundle"
    assert run(["build", str(recipe), "-o", str(bundle)]) == 0
    assert run(["verify", str(bundle)]) == 0
    with Scorer.open(bundle, site=None, threads=1) as scorer:
        image = tmp_path / "golden" / "03.png"
        for empty in (" ", " \n"):
            with pytest.raises(PromptError, match=r"prompt\.empty.*white-space"):
                scorer.prompts.add("nothing", empty)
        scorer.prompts.add("dense", "edema is cardiomegaly")
        stored = [entry.prompts[0] for entry in scorer.prompts.state.heads[0].bank.entries]
        assert [wording.words for wording in stored] == [3, 1, 3]
        ids = [[[2, 3, 4, 0]], [[5, 0]], [[4, 3, 6, *(ord(c) - ord("a") + 7 for c in "cardiomegaly"), 0]]]
        pixels = scorer.prepare(image, modality="DX").network_input.pixels[0]
        found = [score.logit for score in scorer.score(image, modality="DX").scores.values()]
        assert np.abs(np.array(found) - plain_logits(state, pixels, ids)).max() <= 2e-6
