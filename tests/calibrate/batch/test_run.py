"""A batch goes on only as what it began, one call at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from promptray.calibrate.batch.run import MANIFEST, ScorerFacts, claimed
from promptray.runtime.backends import HOST
from promptray.runtime.backends.host_settings import HostSettings
from promptray.runtime.errors import PromptRayError
from promptray.runtime.scorer import Scorer
from tests.calibrate.batch.runs import facts
from tests.fuzz.small_bundle import write_small

IMAGES = [Path("a.dcm"), Path("b.dcm")]
OTHERS = {
    "software": "promptray 1", "bundle": "2" * 64, "site_revision": 3, "findings_sha256": "3" * 64,
    "backend": "tensorrt", "backend_version": "2", "precision": "fp16", "gated_as": "onnxruntime-cpu@x",
    "threads": 2, "settings": HostSettings(optimisation="basic"),
    "engines": "key", "prepare": "device", "modality": "CR", "frame": 2, "strict": True,
    "reproducible": True, "images_sha256": "4" * 64, "part": 4,
}  # fmt: skip


def test_it_goes_on_as_what_it_began(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "scores"
    with claimed(folder, facts(IMAGES)):
        first = (folder / MANIFEST).read_bytes()
    unfinished = [folder / ".promptray.0.partial", folder / ".part-000000.parquet.attempts.77"]
    for path in unfinished:
        path.touch()
    (folder / "part-000000.parquet").touch()
    with claimed(folder, facts(IMAGES)):
        assert (folder / MANIFEST).read_bytes() == first
        assert not any(path.exists() for path in unfinished)
        assert (folder / "part-000000.parquet").exists()


@pytest.mark.parametrize("name", OTHERS)
def test_it_does_not_go_on_as_another(tmp_path: Path, name: str) -> None:
    with claimed(tmp_path, facts(IMAGES)):
        pass
    changed: dict[str, Any] = {name: OTHERS[name]}
    with pytest.raises(PromptRayError) as refused, claimed(tmp_path, facts(IMAGES, **changed)):
        pytest.fail("it went on")
    assert refused.value.code == "batch.state"
    assert refused.value.message.endswith(f"another {name}")
    assert refused.value.found == str(OTHERS[name])


def test_threads_are_of_reproducible_scores_and_settings_of_all(tmp_path: Path) -> None:
    """A batch whose bits do not matter may go on with fewer workers, which have more threads each."""
    write_small(tmp_path)

    def found(threads: int, *, reproducible: bool, **settings: Any) -> ScorerFacts:
        path, host = tmp_path / "small.bundle", HostSettings(**settings)
        with Scorer.open(path, site=None, backend=HOST, threads=threads, host=host) as scorer:
            return ScorerFacts.of(scorer, reproducible=reproducible)

    assert found(1, reproducible=False) == found(2, reproducible=False)
    assert found(1, reproducible=True) != found(2, reproducible=True)
    assert found(1, reproducible=False, optimisation="basic").settings == HostSettings(optimisation="basic")
    assert found(1, reproducible=False).settings is None


def test_a_folder_of_other_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(PromptRayError) as refused, claimed(tmp_path, facts(IMAGES)):
        pytest.fail("it wrote there")
    assert refused.value.code == "batch.state"
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_it_goes_on_where_it_died_before_it_had_begun(tmp_path: Path) -> None:
    for left in (".lock", ".promptray.0.partial"):
        (tmp_path / left).touch()
    with claimed(tmp_path, facts(IMAGES)):
        assert (tmp_path / MANIFEST).exists()
        assert not (tmp_path / ".promptray.0.partial").exists()


def test_two_calls_do_not_share_a_folder(tmp_path: Path) -> None:
    with claimed(tmp_path, facts(IMAGES)):
        with pytest.raises(PromptRayError) as refused, claimed(tmp_path, facts(IMAGES)):
            pytest.fail("both are at work")
        assert refused.value.code == "batch.state"
    with claimed(tmp_path, facts(IMAGES)):
        pass


@pytest.mark.parametrize("content", [b"", b"{}", b'{"schema": "promptray-batch-run", "schema_version": 2}'])
def test_a_damaged_manifest_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / MANIFEST).write_bytes(content)
    with pytest.raises(PromptRayError) as refused, claimed(tmp_path, facts(IMAGES)):
        pytest.fail("it went on")
    assert refused.value.code == "batch.state"
