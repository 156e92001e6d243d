"""The timing cache is kept for one version and device, whole or not at all, and is never a reason to fail."""

from __future__ import annotations

from pathlib import Path

import platformdirs
import pytest

from promptray.calibrate.engines.timing_cache import TimingCache, default_folder
from tests.engine_factory import ADA, ORIN


def cache(folder: Path | None, version: str = "10.3.0", device: object = ORIN) -> TimingCache:
    return TimingCache(folder, "tensorrt", version, device)  # type: ignore[arg-type]


def test_what_is_kept_is_read_again_by_the_same_version_on_the_same_device(tmp_path: Path) -> None:
    folder = tmp_path / "caches" / "tensorrt"
    assert cache(folder).read() is None
    cache(folder).keep(b"measured")
    assert cache(folder).read() == b"measured"
    assert cache(folder, "10.4.0").read() is None
    assert cache(folder, device=ADA).read() is None
    cache(folder).keep(b"measured more")
    assert cache(folder).read() == b"measured more"
    assert len(list(folder.iterdir())) == 1


def test_a_damaged_one_counts_as_absent(tmp_path: Path) -> None:
    cache(tmp_path).keep(b"measured")
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    for changed in (whole[:-1], whole + b"x", b"", whole[:32], bytes([whole[0] ^ 1]) + whole[1:]):
        file.write_bytes(changed)
        assert cache(tmp_path).read() is None


def test_none_keeps_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cache(None).keep(b"measured")
    assert cache(None).read() is None
    cache(tmp_path).keep(None)
    cache(tmp_path).keep(b"")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_loses_no_engine(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    cache(tmp_path / "file" / "caches").keep(b"measured")
    assert cache(tmp_path / "file" / "caches").read() is None


def test_the_default_is_in_the_users_cache_folder() -> None:
    assert default_folder().is_relative_to(Path(platformdirs.user_cache_dir("promptray", appauthor=False)))
