from __future__ import annotations

from pathlib import Path

import pytest

from promptray.calibrate.adapt.run_folder import RunFolder
from promptray.calibrate.adapt.whole import remove_partial, replace_whole, whole_folder
from promptray.runtime.errors import PromptRayError


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    replace_whole(tmp_path / "file", b"first")
    replace_whole(tmp_path / "file", b"second")
    assert (tmp_path / "file").read_bytes() == b"second"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_folder_is_there_only_when_it_was_filled(tmp_path: Path) -> None:
    def killed() -> None:
        with whole_folder(tmp_path / "stage") as folder:
            (folder / "half").write_bytes(b"")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        killed()
    assert list(tmp_path.iterdir()) == []
    with whole_folder(tmp_path / "stage") as folder:
        (folder / "all").write_bytes(b"x")
    assert (tmp_path / "stage" / "all").read_bytes() == b"x"


def test_what_a_kill_leaves_is_cleared_by_the_next_run(tmp_path: Path) -> None:
    (tmp_path / ".probe.123.partial").mkdir()
    (tmp_path / ".probe.123.partial" / "half").write_bytes(b"")
    (tmp_path / ".run.json.456.partial").write_bytes(b"")
    (tmp_path / "kept").write_bytes(b"")
    remove_partial(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_two_runs_in_one_folder_are_one_too_many(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "out").locked():
        with pytest.raises(PromptRayError) as refused, RunFolder(tmp_path / "out").locked():
            pass
        assert refused.value.code == "adapt.state"
    with RunFolder(tmp_path / "out").locked():
        pass


def test_a_run_goes_on_only_with_the_same_facts(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "out")
    assert not folder.claim({"seed": 1, "columns": ("a", None)})
    assert RunFolder(tmp_path / "out").claim({"seed": 1, "columns": ("a", None)})
    with pytest.raises(PromptRayError) as refused:
        folder.claim({"seed": 2, "columns": ("a", None)})
    assert (refused.value.code, refused.value.found) == ("adapt.state", "other seed")
    (tmp_path / "out" / "run.json").write_bytes(b"{")
    with pytest.raises(PromptRayError):
        folder.claim({"seed": 1})


def test_vectors_may_be_brought_along_and_other_files_may_not(tmp_path: Path) -> None:
    (tmp_path / "features.safetensors").write_bytes(b"")
    RunFolder(tmp_path)
    (tmp_path / "probe.bundle").mkdir()
    with pytest.raises(PromptRayError) as refused:
        RunFolder(tmp_path)
    assert refused.value.code == "output.exists"
