"""A report is never written over another one."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptray.calibrate.output_folder import OutputFolder
from promptray.runtime.errors import PromptRayError


def test_a_folder_is_made_and_filled(tmp_path: Path) -> None:
    OutputFolder(tmp_path / "a" / "b", ["x"]).write({"x": b"1"})
    assert (tmp_path / "a" / "b" / "x").read_bytes() == b"1"


def test_a_folder_with_other_files_is_used(tmp_path: Path) -> None:
    (tmp_path / "note").touch()
    OutputFolder(tmp_path, ["x"]).write({"x": b"1"})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["note", "x"]


def test_an_old_report_is_refused_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"old")
    with pytest.raises(PromptRayError, match="found x") as caught:
        OutputFolder(tmp_path, ["x", "y"])
    assert caught.value.code == "output.exists"


def test_a_file_that_came_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    folder = OutputFolder(tmp_path, ["x"])
    (tmp_path / "x").write_bytes(b"new")
    with pytest.raises(PromptRayError, match=r"output\.unwritable"):
        folder.write({"x": b"1"})
    assert (tmp_path / "x").read_bytes() == b"new"


def test_a_place_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(PromptRayError, match=r"output\.unwritable.*with -o"):
        OutputFolder(tmp_path / "file", ["x"])
    with pytest.raises(PromptRayError, match=r"output\.unwritable.*with --report"):
        OutputFolder(tmp_path / "file", ["x"], "--report")
