"""``promptray export-triton``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from promptray.runtime.scorer import Scorer
from tests.export.triton.triton_server import TritonServer
from tests.promptray.command_line import Call


def test_from_a_bundle_to_answers(call: Call, bundle: Path, image: Path, tmp_path: Path) -> None:
    answer = call("export-triton", bundle, "-o", tmp_path / "models", "--max-batch", 2, "--json")
    assert answer.code == 0, answer.err
    (document,) = answer.documents
    server = TritonServer(tmp_path / "models")
    assert set(document["models"]) == set(server.configs)
    assert document["serving"]["max_batch"] == 2
    (scored,) = call("score", bundle, image, "--modality", "DX", "--no-site", "--json").documents
    with Scorer.open(bundle, site=None) as scorer:
        pixels = scorer.prepare(image, modality="DX").network_input.pixels
    found = server.infer(document["ensemble"], {"pixels": pixels})
    assert document["bundle"] == scored["bundle"]["sha256"]
    (head,) = document["heads"]
    logits = [finding["score"]["logit"] for finding in scored["findings"]]
    assert np.abs(found[f"logits.{head['head']}"][0] - logits).max() <= head["score_tolerance"]
    assert 0 <= head["score_error"] <= head["score_tolerance"]


def test_what_is_printed_for_people(call: Call, bundle: Path, tmp_path: Path) -> None:
    answer = call("export-triton", bundle, "-o", tmp_path / "models", "--name", "chest", "--max-batch", 1)
    assert answer.code == 0, answer.err
    assert "chest_image" in answer.out
    assert "docs/triton.md" in answer.out
    again = call("export-triton", bundle, "-o", tmp_path / "models", "--json")
    assert again.code == 1
    assert again.documents[0]["error"]["code"] == "bundle.exists"


@pytest.mark.parametrize("name", ["", "a b", "../up", "_a", "a" * 65])
def test_a_name_that_is_none(call: Call, bundle: Path, tmp_path: Path, name: str) -> None:
    answer = call("export-triton", bundle, "-o", tmp_path / "models", "--name", name)
    assert answer.code == 2
    assert not (tmp_path / "models").exists()
