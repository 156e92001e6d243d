"""Verify checks every byte, then the golden images from file to score."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from promptray import BundleError, Scorer
from promptray.runtime import verify as verify_module
from promptray.runtime.preprocess import NetworkInput, preprocess
from promptray.runtime.verify import verify
from tests.bundle_factory import relist


def test_a_good_bundle_passes_and_says_how_close(carzero_bundle: Path) -> None:
    report = verify(carzero_bundle, site=None)
    assert report.golden.pictures == 16
    (head,) = report.golden.heads
    assert 0 < head.score_error <= head.score_tolerance == 2e-5
    assert head.map_error is not None
    assert head.map_error <= head.map_tolerance == 1e-6
    assert report.golden.text_error is not None
    assert report.golden.text_error < 1e-5
    assert report.to_json()["verified"] is True


def test_a_bundle_without_text_graph_says_so(carzero_bundle_no_text: Path) -> None:
    assert verify(carzero_bundle_no_text, site=None).golden.text_error is None


def test_a_tokenizer_that_tokenises_otherwise_is_refused(carzero_bundle: Path, tmp_path: Path) -> None:
    """Its hash is right; a prompt added with it would mean something else than the bundle's own."""
    shutil.copytree(carzero_bundle, tmp_path / "copy")
    content = json.loads((tmp_path / "copy" / "tokenizer.json").read_text())
    content["normalizer"]["lowercase"] = False
    pieces = content["model"]["vocab"]
    swapped = dict(zip(pieces, reversed(pieces.values()), strict=True))
    content["model"]["vocab"] = {**swapped, **{name: pieces[name] for name in pieces if name.startswith("[")}}
    relist(tmp_path / "copy", "tokenizer.json", json.dumps(content).encode())
    with pytest.raises(BundleError) as refusal:
        verify(tmp_path / "copy", site=None)
    assert refusal.value.code in ("bundle.golden", "bundle.format")


def test_every_file_is_hashed(carzero_bundle: Path, tmp_path: Path) -> None:
    names = [path.relative_to(carzero_bundle) for path in carzero_bundle.rglob("*") if path.is_file()]
    assert len(names) > 20
    copy = tmp_path / "copy"
    shutil.copytree(carzero_bundle, copy)
    for name in names:
        content = (copy / name).read_bytes()
        changed = bytearray(content)
        changed[len(changed) // 3] ^= 0x10
        (copy / name).write_bytes(changed)
        with pytest.raises(BundleError) as refusal:
            verify(copy, site=None)
        assert refusal.value.code in ("bundle.hash", "bundle.seal")
        assert name.name in str(refusal.value)
        assert refusal.value.expected
        assert refusal.value.found
        assert refusal.value.cure
        (copy / name).write_bytes(content)
    assert verify(copy, site=None).files == len(names) - 1, "all but the seal, which hashes bundle.json"


def test_a_machine_that_prepares_otherwise_is_refused(
    carzero_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def one_grey_level_off(*arguments: object) -> NetworkInput:
        made = preprocess(*arguments)  # type: ignore[arg-type]
        grey = made.picture.copy()
        grey[100, 100] ^= 1
        return NetworkInput(grey, made.pixels, made.geometry)

    monkeypatch.setattr(verify_module, "preprocess", one_grey_level_off)
    with pytest.raises(BundleError) as refusal:
        verify(carzero_bundle, site=None)
    assert refusal.value.code == "bundle.golden"
    assert "1 pixels differ" in str(refusal.value)


def test_site_entries_are_hashed_too(carzero_bundle: Path, tmp_path: Path) -> None:
    with Scorer.open(carzero_bundle, site=tmp_path) as scorer:
        scorer.prompts.add("kept", "There is something kept", keep=True)
        digest = scorer.bundle.hash
    assert verify(carzero_bundle, site=str(tmp_path)).site_entries == 1
    entry = next((tmp_path / digest / "entries").iterdir())
    content = np.frombuffer(entry.read_bytes(), np.uint8).copy()
    content[len(content) // 2] ^= 1
    entry.write_bytes(content.tobytes())
    with pytest.raises(BundleError) as refusal:
        verify(carzero_bundle, site=str(tmp_path))
    assert refusal.value.code == "site.corrupt"
