"""A model to time is built by the code that is here."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import full_size_bundle


def test_a_bundle_of_an_older_commit_is_not_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    old = tmp_path / "own" / "model.bundle"
    old.mkdir(parents=True)
    (old / "old").touch()
    built: list[Path] = []
    monkeypatch.setattr(full_size_bundle, "build", lambda recipe, output, cache: built.append(output))
    model = {"family": "convnext", "findings": [{"key": "density A", "class_name": "A"}]}
    recipe = full_size_bundle.build_random(
        tmp_path / "own", lambda own: model, 4, cache=tmp_path / "cache", sections={"gate": "x"}
    )
    assert built == [old]
    assert not old.exists()
    assert recipe.read_text(encoding="utf-8").endswith("gate: x\n")
