"""What ``promptray batch`` refuses before Ray is started."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from tests.promptray.command_line import Call


def test_without_an_image(call: Call, bundle: Path, tmp_path: Path) -> None:
    assert call("batch", bundle, "-o", tmp_path / "scores").code == 2
    (tmp_path / "empty").mkdir()
    assert call("batch", bundle, tmp_path / "empty", "-o", tmp_path / "scores").code == 2
    assert not (tmp_path / "scores").exists()


def test_results_among_the_images(call: Call, bundle: Path, image: Path, tmp_path: Path) -> None:
    """They would be images of the call that goes on."""
    films = tmp_path / "films"
    films.mkdir()
    (films / image.name).write_bytes(image.read_bytes())
    for place in (films, films / "scores", films / ".." / "films" / "scores"):
        answer = call("batch", bundle, films, "-o", place)
        assert answer.code == 2
        assert "-o lies in a folder of images" in answer.err
    assert [path.name for path in films.iterdir()] == [image.name]


def test_an_image_twice(call: Call, bundle: Path, image: Path, tmp_path: Path) -> None:
    answer = call("batch", bundle, image, image, "-o", tmp_path / "scores", "--json")
    assert answer.code == 1
    assert answer.documents[0]["error"]["code"] == "batch.images"


def test_no_bundle(call: Call, image: Path, tmp_path: Path) -> None:
    answer = call("batch", tmp_path / "none", image, "-o", tmp_path / "scores", "--json")
    assert answer.code == 1
    assert answer.documents[0]["error"]["code"] == "bundle.not-found"
    assert not (tmp_path / "scores").exists()


def test_without_ray_the_extra_is_named(
    call: Call, bundle: Path, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec

    def without(name: str, *rest: Any) -> Any:
        return None if name == "ray" else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    answer = call("batch", bundle, image, "-o", tmp_path / "scores", "--json")
    assert answer.code == 1
    error = answer.documents[0]["error"]
    assert error["code"] == "extra.missing"
    assert error["artefact"] == "ray"
    assert "promptray[ray]" in error["cure"]
