"""The bindings of several TensorRTs are installed whole, or again."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tools import tensorrt_bindings


def test_an_interrupted_installation_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Path] = []

    def install(command: list[str], **_: Any) -> None:
        folder = Path(command[command.index("--target") + 1])
        folder.mkdir(parents=True)
        begun.append(folder)
        if len(begun) == 1:
            raise subprocess.CalledProcessError(1, command)
        (folder / "module").touch()

    monkeypatch.setattr(tensorrt_bindings, "FOLDER", tmp_path)
    monkeypatch.setattr(tensorrt_bindings, "wanted", lambda: [Requirement("some-bindings==1.2")])
    monkeypatch.setattr(subprocess, "run", install)
    with pytest.raises(subprocess.CalledProcessError):
        tensorrt_bindings.main()
    assert not (tmp_path / "1.2").exists()
    for _ in range(2):  # the second finds it whole
        assert tensorrt_bindings.main() == 0
    assert len(begun) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["1.2"]
    assert (tmp_path / "1.2" / "module").exists()
