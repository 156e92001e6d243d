"""What makes a prompt's entry is in the bank's identity and in its numbers: tokenizer, pooling, heads."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from promptray import Scorer
from promptray.export.build import build
from promptray.export.checkpoint import load_checkpoint
from promptray.export.torchvision_guard import ensure_torchvision_imports
from promptray.runtime.bundle import Bundle
from promptray.runtime.errors import BundleError
from tests import carzero_tiny, open_clip_tiny
from tests.open_clip_arithmetic import class_vector
from tests.open_clip_tiny import FOLDER, WEIGHTS, change_json, copy_folder

HEADS = 4
_EXPORT = """
import hashlib, sys
from pathlib import Path
from promptray.export.families import family
from promptray.export.onnx_graph import export_graph
for name, checkpoint, text_model in zip(*[iter(sys.argv[1:])] * 3):
    model = family(name).load(Path(checkpoint), Path(text_model) if text_model else None, {})
    print(hashlib.sha256(export_graph(model.text.side, "text")).hexdigest())
"""


def test_an_export_has_the_same_bytes_in_every_process(carzero_bundle: Path, open_clip_bundle: Path) -> None:
    """Else the graph's hash could not be part of a bank's identity."""
    folder = carzero_tiny.FOLDER
    models = [
        *("carzero", folder / "CARZero_best_model.ckpt", folder / "text_model"),
        *("open_clip", FOLDER / WEIGHTS, ""),
    ]
    command = [sys.executable, "-c", _EXPORT, *map(str, models)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    hashes = [
        hashlib.sha256(next((bundle / "graphs" / "text").iterdir()).read_bytes()).hexdigest()
        for bundle in (carzero_bundle, open_clip_bundle)
    ]
    assert done.stdout.split() == hashes
    for bundle, expected in zip((carzero_bundle, open_clip_bundle), hashes, strict=True):
        assert Bundle.open(bundle).manifest.heads[0].bank.identity["text_graph"] == expected


def _pooled(folder: Path) -> Path:
    """BiomedCLIP's very weights, with another pooling of the words."""
    pooling = {"hf_pooler_type": "mean_pooler"}
    path = copy_folder(folder / "model", config=lambda c: c["model_cfg"]["text_cfg"].update(pooling))
    return open_clip_tiny.write_recipe(folder, checkpoint=str(path))


def _heads(folder: Path) -> Path:
    """CARZero's very weights, with other attention heads of the text model."""
    text_model = Path(shutil.copytree(carzero_tiny.FOLDER / "text_model", folder / "text_model"))
    change_json(text_model / "config.json", lambda content: content.update(num_attention_heads=2))
    options = {"image_heads": HEADS}
    return carzero_tiny.write_recipe(folder, text_model=str(text_model), model_options=options)


@pytest.mark.parametrize(("family", "recipe"), [("open_clip", _pooled), ("carzero", _heads)])
def test_the_same_weights_used_otherwise_make_a_foreign_bank(
    family: str, recipe: Callable[[Path], Path], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    other = build(recipe(tmp_path), tmp_path / "other.bundle", cache=tmp_path / "cache")
    here: Path = request.getfixturevalue(f"{family}_bundle")
    banks = Bundle.open(here).manifest.heads[0].bank, other.manifest.heads[0].bank
    differing = {key for key, value in banks[0].identity.items() if banks[1].identity[key] != value}
    assert differing == {"text_graph"}
    with Scorer.open(other.path, site=None) as scorer:
        key = next(iter(scorer.prompts)).key
        exported = scorer.prompts.export([key])
    with Scorer.open(here, site=None) as scorer, pytest.raises(BundleError) as refusal:
        scorer.prompts.import_(exported)
    assert refusal.value.code == "bundle.foreign-bank"


TOKENIZERS: dict[str, dict[str, Any]] = {
    "accents are kept": {"strip_accents": False},
    "case is kept": {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False},
}


@pytest.mark.parametrize("case", TOKENIZERS)
def test_a_bundle_encodes_as_its_folders_tokenizer_does(tmp_path: Path, case: str) -> None:
    """Through the whole build, against transformers' ids and plain arithmetic."""
    path = copy_folder(tmp_path / "model")
    change_json(path.with_name("tokenizer_config.json"), lambda content: content.update(TOKENIZERS[case]))
    prompts = ["pleural é effusion", "Pleural effusion 漢字 x", "pneumonia"]
    findings = [{"key": prompt, "prompt": prompt} for prompt in prompts]
    recipe = open_clip_tiny.write_recipe(tmp_path, checkpoint=str(path), findings=findings)
    bundle = build(recipe, tmp_path / "new.bundle", cache=tmp_path / "cache")

    tokenizer, state = _published(path.parent), load_checkpoint(path)
    plain = _published(FOLDER)
    ids = [tokenizer(prompt)["input_ids"] for prompt in prompts]
    assert ids[:2] != [plain(prompt)["input_ids"] for prompt in prompts[:2]], "the settings count"
    stored = safetensors.numpy.load((bundle.path / "banks" / "findings.safetensors").read_bytes())[
        "finding_vector"
    ]
    expected = np.stack([class_vector(state, [each], HEADS).numpy() for each in ids])
    assert np.abs(stored - expected).max() <= open_clip_tiny.UNIT


def _published(folder: Path) -> Any:
    ensure_torchvision_imports()
    from transformers import BertTokenizer

    return BertTokenizer.from_pretrained(str(folder))
