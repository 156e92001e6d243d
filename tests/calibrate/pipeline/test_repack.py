"""Repacking a bundle of changed graphs: no finding may come or go that no gate was held with."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptray import BundleError, Scorer
from promptray.export.repack import repack
from promptray.runtime.bundle import Bundle


@pytest.mark.parametrize("add", [True, False], ids=["added", "removed"])
def test_it_is_refused(gated_bundle: Path, tmp_path: Path, add: bool) -> None:
    site = tmp_path / "site"
    site.mkdir()
    with Scorer.open(gated_bundle, site=site) as scorer:
        if add:
            scorer.prompts.add("edema", "There is edema.", keep=True)
        else:
            scorer.prompts.remove(Bundle.open(gated_bundle).manifest.findings[0].key, keep=True)
    with pytest.raises(BundleError) as refusal:
        repack(gated_bundle, tmp_path / "new.bundle", site=site)
    assert refusal.value.code == "repack.ungated"
    assert "promptray build" in str(refusal.value.cure)
    assert not (tmp_path / "new.bundle").exists()
