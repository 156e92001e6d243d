"""A file beside a checkpoint is a JSON object within the limit, or refused by its name."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from promptray.export import json_file
from promptray.export.json_file import read_object
from promptray.runtime.errors import BuildError


def read(path: Path) -> object:
    return read_object(path, code="checkpoint.config", cure="put the published file there")


def test_an_object_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"num_attention_heads": 12, "name": "ß"}', encoding="utf-8")
    assert read(tmp_path / "config.json") == {"num_attention_heads": 12, "name": "ß"}


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"12", b"\xff\xfe{}", b'{"std": NaN}', b'{"std": -Infinity}', b"[" * 200_000,
     b'{"heads": ' + b"9" * 5000 + b"}"],
    ids=["empty", "cut", "list", "number", "utf-16", "nan", "infinity", "deep", "long"],
)  # fmt: skip
def test_another_content_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(BuildError) as refusal:
        read(tmp_path / "config.json")
    assert refusal.value.code == "checkpoint.config"
    assert refusal.value.artefact == "config.json"
    assert refusal.value.cure == "put the published file there"


def test_what_is_too_large_or_no_file_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large.json").write_text('{"a": "bc"}')
    monkeypatch.setattr(json_file, "_LARGEST", 10)
    (tmp_path / "folder.json").mkdir()
    for name in ("large", "folder", "absent"):
        with pytest.raises(BuildError, match="cannot be read"):
            read(tmp_path / f"{name}.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(BuildError, match="cannot be read"):
        read(tmp_path / "pipe.json")
