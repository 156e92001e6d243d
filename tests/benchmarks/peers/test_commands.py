"""The commands of the report still run, on small models; what they time is not looked at."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
import yaml

from benchmarks import full_size_bundle
from benchmarks.peers import models, open_clip_model
from benchmarks.peers.__main__ import main
from benchmarks.peers.carzero_original import TOLERANCE, fixture_error
from benchmarks.peers.result import Comparison, PeersResult
from promptray.export.torchvision_guard import ensure_torchvision_imports
from promptray.runtime.backends import HOST, OPENVINO
from promptray.runtime.packs import read_pack
from tests import carzero_tiny, open_clip_tiny

ensure_torchvision_imports()

from timm.models import register_model  # noqa: E402 - imports torchvision
from timm.models.vision_transformer import VisionTransformer  # noqa: E402

#: What the tests replace.
MADE = models.built
#: The first prompts of the pack, as a command's own bundles have them.
FINDINGS = [{"key": each.key, "prompt": each.prompts[0]} for each in read_pack("padchest192").findings[:2]]


@register_model
def vit_of_the_peers_test(**_: Any) -> VisionTransformer:
    """open_clip makes timm's towers only: the fixture's, under a name of timm."""
    tower = VisionTransformer(embed_dim=64, depth=3, num_heads=4)
    tower.default_cfg = {}
    return tower


@pytest.fixture(autouse=True)
def _tiny_bundles(shared_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give the commands bundles of the fixtures, which are made once; leave torch as it was."""
    makers = {"carzero": carzero_tiny, "biomedclip": open_clip_tiny}

    def built(family: str, size: str, work: Path) -> tuple[Path, Path]:
        assert size == "small"
        changes = {"findings": FINDINGS, "relation": None, **models.sections()}
        bundle = makers[family].shared_bundle(shared_dir, f"{family}-peers", **changes)
        return shared_dir / f"{family}-peers" / "recipe.yaml", bundle

    monkeypatch.setattr(models, "built", built)
    monkeypatch.setitem(open_clip_model._TOWERS, 64, "vit_of_the_peers_test")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def run(folder: Path, *command: str) -> PeersResult:
    output = folder / "result.json"
    assert main([*command, "--small", "--threads", "1", "--rounds", "2", "-o", str(output)]) == 0
    return msgspec.json.decode(output.read_bytes(), type=PeersResult)


def rows(comparison: Comparison) -> dict[str, str]:
    """Who took part, each with its kind; whoever was timed has a ratio, the others a reason."""
    for row in comparison.rows:
        assert (row.ratio is None) == (row.not_run is not None), row
        assert row.kind in ("promptray", "other precision") or row.not_run or row.score_error is not None
    return {row.contestant: row.kind for row in comparison.rows if row.milliseconds}


def test_the_original_gives_the_scores_of_its_authors_code() -> None:
    assert fixture_error() <= TOLERANCE


@pytest.mark.slow
def test_carzero(tmp_path: Path) -> None:
    found = run(tmp_path, "carzero", "--prompts", "2,4")
    assert [each.prompts for each in found.comparisons] == [2, 2, 4, 4]
    for comparison in found.comparisons:
        assert list(rows(comparison).values())[-1] == "peer"
        assert {"PromptRay (onnxruntime-cpu)", "PromptRay (openvino)"} <= rows(comparison).keys()
        errors = [row.score_error for row in comparison.rows if row.score_error is not None]
        assert max(errors) <= TOLERANCE < comparison.score_spread / 20, "the scores are of different prompts"
    assert not found.targets, "the targets are for 192 prompts"


def test_the_bundles_are_for_every_backend_that_peers_run_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full_size_bundle, "build", lambda recipe, output, cache: None)
    model = {"family": "carzero", "checkpoint": "model.ckpt"}
    monkeypatch.setitem(models.FAMILIES, "carzero", lambda folder, **sizes: model)
    recipe, _ = MADE("carzero", "small", tmp_path)
    assert yaml.safe_load(recipe.read_text(encoding="utf-8"))["backends"] == [HOST, OPENVINO]


def test_head_share(tmp_path: Path) -> None:
    found = run(tmp_path, "head-share", "--prompts", "14,200")
    assert [each.prompts for each in found.head_shares] == [14, 200]
    assert [each.wanted for each in found.targets] == ["<= 0.08"]
    assert all(each.share.median > 0 for each in found.head_shares)


def test_overhead(tmp_path: Path) -> None:
    found = run(tmp_path, "overhead", "--prompts", "3")
    assert [(each.model, each.prompts) for each in found.overheads] == [("biomedclip", 3), ("carzero", 3)]
    for each in found.overheads:
        assert 0 < each.overhead.median < each.scorer.median


@pytest.mark.slow
def test_dual_encoder(tmp_path: Path) -> None:
    found = run(tmp_path, "dual-encoder", "--prompts", "3")
    encoded, anew = found.comparisons
    assert {"PromptRay (onnxruntime-cpu)", "PromptRay (openvino)"} <= rows(encoded).keys()
    peers = [name for name, kind in rows(encoded).items() if kind == "peer"]
    assert peers[0] == "open_clip, eager"
    assert "ONNX Runtime, defaults" in peers
    assert list(rows(anew).values())[-1] == "with texts"
    for comparison in found.comparisons:
        same = [row.score_error for row in comparison.rows if row.score_error and row.kind == "peer"]
        assert max(same, default=0.0) <= comparison.score_tolerance < comparison.score_spread / 20
    (target,) = found.targets
    assert "over PromptRay's" in target.what
