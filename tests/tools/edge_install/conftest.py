"""A package index in a folder, with wheels that hold nothing but metadata."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

Publish = Callable[..., Path]


@pytest.fixture
def publish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """``publish(name, *requirements, tag=..., licence=...)`` adds version 1 to the only index pip knows."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    def add(name: str, *requirements: str, tag: str = "py3-none-any", licence: str = "MIT") -> Path:
        path = folder / f"{name}-1-{tag}.whl"
        lines = ["Metadata-Version: 2.4", f"Name: {name}", "Version: 1", f"License-Expression: {licence}"]
        lines += ["Provides-Extra: more", *(f"Requires-Dist: {each}" for each in requirements)]
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{name}-1.dist-info/METADATA", "\n".join(lines) + "\n")
            archive.writestr(f"{name}-1.dist-info/WHEEL", f"Wheel-Version: 1.0\nTag: {tag}\n")
            archive.writestr(f"{name}-1.dist-info/RECORD", "")
        return path

    return add


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index that nothing listens for."""
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)
