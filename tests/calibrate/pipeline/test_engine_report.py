"""The report says of every set of sources what the bundle has, or it is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from promptray import BundleError, Scorer
from promptray.export.repack import repack
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.parity import read_parity
from tests import bundle_factory as factory


def _edited(typed_bundle: Path, folder: Path, edit: Callable[[list[Any]], object]) -> Bundle:
    copy = Path(shutil.copytree(typed_bundle, folder / "copy"))
    report = json.loads((copy / "parity.json").read_bytes())
    edit(report["sources"])
    factory.relist(copy, "parity.json", json.dumps(report).encode())
    return Bundle.open(copy)


@pytest.mark.parametrize(
    "edit",
    [
        lambda sources: sources.pop(),
        lambda sources: sources.clear(),
        lambda sources: sources.reverse(),
        lambda sources: sources[0].update(precision="fp8-qdq"),
        lambda sources: sources[0]["heads"].clear(),
        lambda sources: sources[0]["heads"][0].update(score_error=1.0),
        lambda sources: sources[0]["heads"][0].update(score_error=-1.0),
        lambda sources: sources[0]["heads"][0].update(map_error=0.2),
        lambda sources: sources[0]["heads"][0].update(map_error=None, map_tolerance=None),
        lambda sources: sources[0]["heads"][0].update(map_error=0.2, map_tolerance=0.3),
        lambda sources: sources[0]["heads"][0].update(score_tolerance=1e9),
        lambda sources: sources[1]["heads"][0].update(
            score_tolerance=1.01 * sources[0]["heads"][0]["score_tolerance"]
        ),
        lambda sources: sources[0]["heads"][0].update(more=1),
    ],
)  # fmt: skip
def test_a_report_that_does_not_fit_the_sources_is_refused(
    typed_bundle: Path, tmp_path: Path, edit: Callable[[list[Any]], object]
) -> None:
    bundle = _edited(typed_bundle, tmp_path, edit)
    with pytest.raises(BundleError, match="report of the gates") as caught:
        read_parity(bundle)
    assert caught.value.code == "bundle.format"


def test_a_changed_source_is_found_by_its_hash(typed_bundle: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(typed_bundle, tmp_path / "copy"))
    name = "engines/image/int8-qdq-20.onnx"
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(BundleError) as caught:
        Bundle.open(copy).read(name)
    assert caught.value.code == "bundle.hash"


def test_repacking_keeps_what_engines_are_compiled_from(typed_bundle: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    with Scorer.open(typed_bundle, site=site) as scorer:
        scorer.prompts.add("rib fracture", "There is rib fracture.", keep=True)
    made = repack(typed_bundle, tmp_path / "new.bundle", site=site).bundle
    before = Bundle.open(typed_bundle)
    assert made.manifest.engines == before.manifest.engines
    assert read_parity(made).sources == read_parity(before).sources
