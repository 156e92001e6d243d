"""Files by path, or by a name that occurs once."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from promptray.calibrate.tables.csv_file import TableError
from promptray.calibrate.tables.image_folder import ImageFolder


@pytest.fixture
def folder(tmp_path: Path) -> ImageFolder:
    for name in ("a.png", "one/b.png", "one/c.png", "two/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return ImageFolder(tmp_path)


def test_files_are_found_by_path_and_by_name(folder: ImageFolder) -> None:
    found = [
        folder.resolve(name) for name in ("a.png", "./a.png", "one/b.png", "one\\b.png", "b.png", "two/c.png")
    ]
    assert found == ["a.png", "a.png", "one/b.png", "one/b.png", "one/b.png", "two/c.png"]
    assert list(folder.files) == ["a.png", "one/b.png", "one/c.png", "two/c.png"]


def test_nothing_outside_the_folder_is_found(folder: ImageFolder, tmp_path: Path) -> None:
    (tmp_path.parent / "secret.png").touch()
    names = ("../secret.png", str(tmp_path / "a.png"), "three/b.png", "", "one")
    assert [folder.resolve(name) for name in names] == [None] * len(names)


def test_a_name_that_several_files_have_is_refused(folder: ImageFolder) -> None:
    with pytest.raises(TableError, match="several sub-folders") as caught:
        folder.resolve("c.png", "line 3")
    assert (caught.value.code, caught.value.artefact) == ("table.image", "line 3")


def test_absent_files_are_counted_and_their_lines_named(folder: ImageFolder) -> None:
    """A file's name may be a patient's."""
    folder.require({"a.png": "line 2", "b.png": "line 3"}, "labels.csv")
    with pytest.raises(TableError, match="2 of them are absent") as caught:
        folder.require({"a.png": "line 2", "x.png": "line 3", "y.png": "line 4"}, "labels.csv")
    assert (caught.value.code, caught.value.artefact) == ("table.image", "labels.csv, line 3, line 4")
    assert "x.png" not in str(caught.value)


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"table\.not-found"):
        ImageFolder(tmp_path / "absent")


def test_linked_folders_are_entered_once(tmp_path: Path) -> None:
    real, root = tmp_path / "real", tmp_path / "root"
    for folder in (real, root):
        folder.mkdir()
    (real / "a.png").touch()
    try:
        (root / "part").symlink_to(real, target_is_directory=True)
        (real / "back").symlink_to(root, target_is_directory=True)
    except OSError:
        pytest.skip("this user may make no links")
    assert list(ImageFolder(root).files) == ["part/a.png"]


def test_a_folder_that_cannot_be_listed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "films" / "DOE^JANE").mkdir(parents=True)
    scandir = os.scandir

    def refusing(path: object) -> object:
        if Path(str(path)).name == "DOE^JANE":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(TableError, match="cannot be listed: Permission denied") as refused:
        ImageFolder(tmp_path / "films")
    assert refused.value.artefact == "films"
    assert "DOE" not in str(refused.value.to_json())
