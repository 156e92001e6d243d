"""A finished stage is reused only while every byte of its inputs, its code and its files is the same."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from promptray.export import stage_cache
from promptray.export.stage_cache import StageCache, kept_bytes


class Stage:
    """Counts how often it had to work."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, folder: Path) -> None:
        self.runs += 1
        (folder / "graph.onnx").write_bytes(b"graph")
        (folder / "facts.json").write_text("{}")


@pytest.fixture
def cache(tmp_path: Path) -> StageCache:
    return StageCache(tmp_path / "cache")


def visible(cache_root: Path) -> list[str]:
    return sorted(path.name for path in cache_root.iterdir() if path.name != ".lock")


def test_the_second_run_takes_the_first_ones_files(cache: StageCache) -> None:
    stage = Stage()
    key = cache.key("export", {"checkpoint": "ab"})
    folder, cached = cache.run("export", key, stage)
    again, cached_again = cache.run("export", key, stage)
    assert (cached, cached_again, stage.runs) == (False, True, 1)
    assert again == folder
    assert (again / "graph.onnx").read_bytes() == b"graph"


def test_another_process_finds_them_too(cache: StageCache, tmp_path: Path) -> None:
    stage, inputs = Stage(), {"checkpoint": "ab", "options": {"b": 1, "a": 2}}
    cache.run("export", cache.key("export", inputs), stage)
    other = StageCache(tmp_path / "cache")
    reordered = {"options": {"a": 2, "b": 1}, "checkpoint": "ab"}
    assert other.run("export", other.key("export", reordered), stage)[1]


def test_a_changed_input_or_stage_has_another_key(cache: StageCache) -> None:
    keys = [
        cache.key("export", {"checkpoint": "ab"}),
        cache.key("export", {"checkpoint": "ac"}),
        cache.key("export", {"checkpoint": "ab", "options": {}}),
        cache.key("prompts", {"checkpoint": "ab"}),
    ]
    assert len(set(keys)) == len(keys)


def test_changed_code_has_another_key(
    cache: StageCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = cache.key("export", {})
    monkeypatch.setattr(stage_cache, "code_sha256", lambda *packages: "other code")
    assert StageCache(tmp_path / "cache").key("export", {}) != before


def test_a_changed_library_has_another_key(cache: StageCache, monkeypatch: pytest.MonkeyPatch) -> None:
    versions = stage_cache.library_versions()
    assert {"numpy", "onnxruntime", "pydicom"} <= versions.keys()
    assert not {"ruff", "atheris"} & versions.keys()
    monkeypatch.setattr(stage_cache, "library_versions", lambda: {**versions, "onnxruntime": "0"})
    assert StageCache(Path("elsewhere")).key("gate", {}) != cache.key("gate", {})


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "graph.onnx").write_bytes(b"gruph"),
        lambda folder: (folder / "graph.onnx").unlink(),
        lambda folder: (folder / "sha256.json").unlink(),
        lambda folder: (folder / "sha256.json").write_text("[]"),
        lambda folder: (folder / "sha256.json").write_text("{"),
    ],
)
def test_a_damaged_stage_is_made_again(cache: StageCache, damage: object) -> None:
    stage, key = Stage(), cache.key("export", {})
    folder, _ = cache.run("export", key, stage)
    assert callable(damage)
    damage(folder)
    again, cached = cache.run("export", key, stage)
    assert (cached, stage.runs) == (False, 2)
    assert (again / "graph.onnx").read_bytes() == b"graph"
    assert cache.run("export", key, stage)[1]


@pytest.mark.parametrize("fault", [RuntimeError, KeyboardInterrupt])
def test_an_interrupted_stage_leaves_nothing(
    cache: StageCache, tmp_path: Path, fault: type[BaseException]
) -> None:
    def interrupted(folder: Path) -> None:
        (folder / "graph.onnx").write_bytes(b"gra")
        raise fault

    key, stage = cache.key("export", {}), Stage()
    with pytest.raises(fault):
        cache.run("export", key, interrupted)
    assert visible(tmp_path / "cache") == []
    assert cache.run("export", key, stage)[1] is False
    assert stage.runs == 1


def test_the_second_of_two_producers_takes_the_firsts_files(cache: StageCache, tmp_path: Path) -> None:
    key = cache.key("export", {})
    made: list[Path] = []

    def slow(folder: Path) -> None:
        made.append(cache.run("export", key, Stage())[0])  # another process finishes meanwhile
        inode.append((made[0] / "graph.onnx").stat().st_ino)
        Stage()(folder)

    inode: list[int] = []
    folder, _ = cache.run("export", key, slow)
    assert folder == made[0]
    assert (folder / "graph.onnx").stat().st_ino == inode[0]
    assert visible(tmp_path / "cache") == [folder.name]


def test_producers_side_by_side_all_get_whole_files(cache: StageCache, tmp_path: Path) -> None:
    key = cache.key("export", {})
    together = threading.Barrier(6)
    found: list[bytes] = []

    def work() -> None:
        together.wait()
        folder, _ = cache.run("export", key, Stage())
        found.append((folder / "graph.onnx").read_bytes())

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [b"graph"] * 6
    assert len(visible(tmp_path / "cache")) == 1


def test_what_is_kept_is_counted(cache: StageCache, tmp_path: Path) -> None:
    assert kept_bytes(tmp_path / "cache") == 0
    folder, _ = cache.run("export", cache.key("export", {}), Stage())
    made = sum(path.stat().st_size for path in folder.iterdir())
    (tmp_path / "cache" / "teacher-answers").mkdir()
    (tmp_path / "cache" / "teacher-answers" / "view.safetensors").write_bytes(b"x" * 100)
    assert kept_bytes(tmp_path / "cache") == made + 100
