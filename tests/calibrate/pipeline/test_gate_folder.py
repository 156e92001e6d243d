"""OUTPUT.gate: reports of an earlier build are replaced, and nothing else is touched."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from promptray import BuildError
from promptray.calibrate.pipeline import gate_folder
from promptray.calibrate.pipeline.gate_folder import MARK, GateFolder

FIRST = {"head-chest.json": b"{}", "head-chest.html": b"<p>", "text.txt": b"passed"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that an earlier build wrote, for the output beside it."""
    GateFolder(tmp_path / "x.bundle").replace(FIRST)
    return tmp_path / "x.bundle.gate"


def refused(output: Path, code: str) -> BuildError:
    with pytest.raises(BuildError) as refusal:
        GateFolder(output)
    assert refusal.value.code == code
    assert refusal.value.artefact == f"{output.name}.gate"
    assert refusal.value.cure
    return refusal.value


def test_reports_are_replaced_and_other_files_stay(folder: Path) -> None:
    (folder / "notes of mine.txt").write_text("keep")
    GateFolder(folder.with_suffix("")).replace({"head-other.json": b"new"})
    assert sorted(path.name for path in folder.iterdir()) == [
        "head-other.json", "notes of mine.txt", MARK,
    ]  # fmt: skip


def test_reports_are_cleared_and_other_files_stay(folder: Path) -> None:
    (folder / "notes of mine.txt").write_text("keep")
    GateFolder(folder.with_suffix("")).clear()
    assert [path.name for path in folder.iterdir()] == ["notes of mine.txt"]


def test_a_report_that_somebody_removed_is_not_missed(folder: Path) -> None:
    (folder / "text.txt").unlink()
    GateFolder(folder.with_suffix("")).replace(FIRST)
    assert (folder / "text.txt").read_bytes() == b"passed"


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "x.bundle.gate").mkdir()
    GateFolder(tmp_path / "x.bundle").replace(FIRST)
    assert (tmp_path / "x.bundle.gate" / "head-chest.json").exists()


def test_a_folder_of_somebody_else_is_never_cleared(tmp_path: Path) -> None:
    theirs = tmp_path / "x.bundle.gate"
    theirs.mkdir()
    (theirs / "head-chest.json").write_text("theirs")
    refused(tmp_path / "x.bundle", "output.exists")
    assert (theirs / "head-chest.json").read_text() == "theirs"


def test_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.bundle.gate").write_text("a file")
    refused(tmp_path / "x.bundle", "output.exists")


def test_links_are_never_followed(folder: Path, tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text("kept")
    (folder / "head-chest.json").unlink()
    (folder / "head-chest.json").symlink_to(kept)
    with pytest.raises(BuildError, match="not written by an earlier build"):
        GateFolder(tmp_path / "x.bundle").replace(FIRST)
    assert kept.read_text() == "kept"
    (tmp_path / "y.bundle.gate").symlink_to(folder)
    refused(tmp_path / "y.bundle", "output.exists")


@pytest.mark.parametrize("mark", [b"", b"\xff", b"head-chest.json\n", None])
def test_a_list_that_names_anything_else_is_not_believed(folder: Path, mark: bytes | None) -> None:
    kept = folder.parent / "kept.json"
    kept.write_text("kept")
    listed = (folder / MARK).read_bytes()
    (folder / MARK).write_bytes(listed + b"../kept.json\n" if mark is None else mark)
    refused(folder.with_suffix(""), "output.exists")
    assert kept.exists()


def test_a_new_file_of_the_house_with_a_report_s_name_is_not_written_over(folder: Path) -> None:
    (folder / "head-new.json").write_text("theirs")
    with pytest.raises(BuildError) as refusal:
        GateFolder(folder.with_suffix("")).replace({"head-new.json": b"ours"})
    assert refusal.value.code == "output.exists"
    assert (folder / "head-new.json").read_text() == "theirs"


def test_a_full_disk_is_said_and_the_next_build_clears_what_it_left(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def full(path: Path, content: bytes) -> Any:
        if written:
            path.write_bytes(content[:1])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        written.append(path)
        path.write_bytes(content)

    with monkeypatch.context() as patch:
        patch.setattr(gate_folder, "write_new", full)
        with pytest.raises(BuildError, match="No space left") as refusal:
            GateFolder(folder.with_suffix("")).replace(FIRST)
    assert refusal.value.code == "output.unwritable"
    GateFolder(folder.with_suffix("")).replace(FIRST)
    assert (folder / "head-chest.html").read_bytes() == b"<p>"


def test_a_folder_that_takes_no_file_is_refused_before_the_long_work(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(**_: Any) -> str:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(gate_folder.tempfile, "mkdtemp", denied)
    assert "Permission denied" in refused(folder.with_suffix(""), "output.unwritable").message
