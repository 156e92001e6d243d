"""A Python is found where machines keep them, and only if it really is that Python."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tools.edge_install.interpreters import find_interpreter

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def script(path: Path, body: str) -> Path:
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\n{body}\n", encoding="utf-8")
    path.chmod(0o755)
    return path


def test_the_running_one_is_found() -> None:
    assert find_interpreter(HERE, {}) == Path(sys.executable)


def test_one_on_the_path_is_found(tmp_path: Path) -> None:
    found = script(tmp_path / "bin" / "python3.99", "echo cpython 3.99")
    assert find_interpreter("3.99", {"PATH": str(found.parent)}) == found


@pytest.mark.parametrize("variables", [{"PYENV_ROOT": ".pyenv"}, {"HOME": "."}])
def test_one_of_pyenv_is_found(tmp_path: Path, variables: dict[str, str]) -> None:
    found = script(tmp_path / ".pyenv" / "versions" / "3.99.1" / "bin" / "python", "echo cpython 3.99")
    environment = {name: str(tmp_path / value) for name, value in variables.items()}
    assert find_interpreter("3.99", environment | {"PATH": ""}) == found


def test_one_that_uv_manages_is_found(tmp_path: Path) -> None:
    found = script(tmp_path / "managed" / "python", "echo cpython 3.99")
    uv = script(tmp_path / "bin" / "uv", f'[ "$*" = "python find --offline 3.99" ] && echo {found}')
    assert find_interpreter("3.99", {"PATH": str(uv.parent)}) == found


@pytest.mark.parametrize("body", ["exit 127", "echo cpython 3.98", "echo pypy 3.99"])
def test_what_is_no_such_python_is_passed_over(tmp_path: Path, body: str) -> None:
    """A shim of a version manager is on the path also where its Python is not installed."""
    shim = script(tmp_path / "bin" / "python3.99", body)
    assert find_interpreter("3.99", {"PATH": str(shim.parent)}) is None
