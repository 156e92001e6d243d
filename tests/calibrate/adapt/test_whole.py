from __future__ import annotations

import errno
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


def test_a_full_disk_names_the_file_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        path.write_bytes(content[:1])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("promptray.calibrate.adapt.whole.write_new", full)
    with pytest.raises(PromptRayError) as refused:
        replace_whole(tmp_path / "features.safetensors", b"vectors")
    assert (refused.value.code, refused.value.artefact) == ("output.unwritable", "features.safetensors")
    assert "No space left" in refused.value.message
    with pytest.raises(PromptRayError) as refused, whole_folder(tmp_path / "probe") as folder:
        full(folder / "tuned.safetensors", b"x")
    assert (refused.value.code, refused.value.artefact) == ("output.unwritable", "probe")
    assert list(tmp_path.iterdir()) == []


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


def test_a_folder_is_made_when_the_run_begins_and_a_file_is_none(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "deep" / "out")
    assert not (tmp_path / "deep").exists()
    with folder.locked():
        assert folder.path.is_dir()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(PromptRayError) as refused:
        RunFolder(tmp_path / "file")
    assert refused.value.code == "output.unwritable"


def test_a_run_that_ended_while_another_waited_is_not_written_over(tmp_path: Path) -> None:
    waiting = RunFolder(tmp_path)
    for name in ("run.json", "report.json"):
        (tmp_path / name).write_bytes(b"{}")
    with pytest.raises(PromptRayError) as refused, waiting.locked():
        pass
    assert refused.value.code == "output.exists"


def test_a_run_goes_on_only_with_the_same_facts(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    facts = {"labels": "hash", "options": {"learning_rate": 0.1, "stages": ["probe"]}}
    folder.require_same(facts)
    folder.claim(facts)
    RunFolder(tmp_path).claim(facts)
    other = {"labels": "other", "options": {"stages": ["probe"], "missing": "count"}}
    with pytest.raises(PromptRayError) as refused:
        folder.claim(other)
    assert refused.value.code == "adapt.state"
    said = "other labels, learning_rate (0.1, now not given), missing (not given, now count)"
    assert refused.value.found == said
    for damaged in (b"{", b"[1]", b"3"):
        (tmp_path / "run.json").write_bytes(damaged)
        with pytest.raises(PromptRayError) as refused:
            folder.require_same(facts)
        assert refused.value.code == "adapt.state"


def test_vectors_may_be_brought_along_and_other_files_may_not(tmp_path: Path) -> None:
    (tmp_path / "features.safetensors").write_bytes(b"")
    RunFolder(tmp_path)
    (tmp_path / "probe.bundle").mkdir()
    with pytest.raises(PromptRayError) as refused:
        RunFolder(tmp_path)
    assert refused.value.code == "output.exists"
