"""Parts: each image has one row whatever dies on the way. Workers here are of this process."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from promptray.calibrate.batch import worker as worker_module
from promptray.calibrate.batch.attempts import MOST, MOST_DEATHS, Attempts, Starts, Stopped
from promptray.calibrate.batch.parts import SCHEMA, cut, read_outcomes, row
from promptray.calibrate.batch.worker import Work, Worker
from promptray.runtime.errors import PromptRayError, ScoringError
from promptray.runtime.result import Refused
from promptray.runtime.scorer import Scorer
from tests.calibrate.batch.runs import archive, work


@pytest.fixture
def images(tmp_path: Path, carzero_checkpoint: Path) -> list[Path]:
    """Seven images, the last of them broken."""
    return archive(tmp_path, carzero_checkpoint / "images" / "half.png", 7)


@pytest.fixture
def told(carzero_bundle: Path, images: list[Path], tmp_path: Path) -> Work:
    return work(carzero_bundle, images, tmp_path / "scores")


def rows(folder: Path) -> list[dict[str, Any]]:
    """All results, read as anybody reads a folder of Parquet."""
    found: list[dict[str, Any]] = pq.read_table(folder).to_pylist()
    return found


def test_every_image_has_its_row(told: Work, images: list[Path], carzero_bundle: Path) -> None:
    worker = Worker(told)
    for part in cut(images, 3):
        worker.score(part)
    worker.close()
    found = sorted(rows(told.folder), key=lambda each: each["index"])
    assert [each["image"] for each in found] == [str(image) for image in images]
    assert [each["index"] for each in found] == list(range(7))
    assert {each["bundle"] for each in found} == {told.run.scorer.bundle}
    assert [each["status"] for each in found] == ["scored"] * 6 + ["refused"]
    assert [each["code"] for each in found] == [None] * 6 + ["image.broken"]
    assert found[-1]["scores"] is None
    with Scorer.open(carzero_bundle, site=None, threads=1) as scorer:
        document = scorer.score(images[0], modality="DX").document
    for each in found[:6]:
        scores = {(score["head"], score["key"]): score["logit"] for score in each["scores"]}
        assert scores == {(own.head, own.key): own.score.logit for own in document.findings}
        assert each["modality"] == "DX"
        assert each["notices"] == [notice.code for notice in document.notices]
    table = pq.read_schema(told.folder / "part-000000.parquet")
    assert table.remove_metadata().equals(SCHEMA)
    assert table.metadata[b"promptray.run"] == told.run.to_json()
    assert not list(told.folder.glob(".*"))
    assert [read_outcomes(told.folder, part, told.run) for part in cut(images, 3)] == [
        Counter({None: 3}), Counter({None: 3}), Counter({"image.broken": 1}),
    ]  # fmt: skip


def test_a_part_that_is_there_is_not_scored_again(told: Work, images: list[Path]) -> None:
    worker, part = Worker(told), cut(images, 3)[0]
    worker.score(part)
    before = (told.folder / part.file).read_bytes()
    for image in part.images:
        image.unlink()
    worker.score(part)
    assert (told.folder / part.file).read_bytes() == before


class _Died(BaseException):
    """In the place of a worker's death: nothing of it catches this."""


class _Mortal:
    """A scorer whose process dies on certain images, as often as is said."""

    def __init__(self, scorer: Scorer, deaths: dict[str, int]) -> None:
        self._scorer, self._deaths = scorer, deaths

    def __getattr__(self, name: str) -> Any:
        return getattr(self._scorer, name)

    def score_many(self, sources: list[Path], **declared: Any) -> Iterator[Any]:
        for source in sources:
            if self._deaths.get(source.name, 0):
                self._deaths[source.name] -= 1
                raise _Died
            yield from self._scorer.score_many([source], **declared)


def _with_restarts(told: Work, images: list[Path], deaths: dict[str, int]) -> int:
    """Score all parts, starting another worker after each death; how often one died."""
    mortal = replace(told, open_scorer=lambda: _Mortal(told.open_scorer(), deaths))
    died = 0
    while True:
        try:
            worker = Worker(mortal)
            for part in cut(images, 3):
                worker.score(part)
            return died
        except _Died:
            died += 1
            assert died < 30, "it never ends"


def test_after_a_death_all_images_are_scored(told: Work, images: list[Path]) -> None:
    assert _with_restarts(told, images, {images[1].name: 1, images[4].name: 2}) == 3
    found = rows(told.folder)
    assert sorted(each["index"] for each in found) == list(range(7))
    assert sum(each["status"] == "scored" for each in found) == 6


def test_an_image_that_always_kills_is_refused_and_the_others_go_on(told: Work, images: list[Path]) -> None:
    always = {images[3].name: 1000, images[5].name: 1000}
    assert _with_restarts(told, images, always) == 1 + 2 * MOST
    found = {each["index"]: each for each in rows(told.folder)}
    assert len(rows(told.folder)) == len(found) == 7
    assert {index: each["code"] for index, each in found.items() if each["code"]} == {
        3: "batch.worker-died", 5: "batch.worker-died", 6: "image.broken",
    }  # fmt: skip
    assert not list(told.folder.glob(".*"))


@pytest.mark.parametrize("content", [b"", b'{"begun"', b"[]"])
def test_a_record_that_was_not_on_disk_yet_is_one_attempt(tmp_path: Path, content: bytes) -> None:
    (part,) = cut([Path("a.png")], 1)
    (tmp_path / f".{part.file}.attempts").write_bytes(content)
    with Attempts(tmp_path, part) as attempts:
        assert not attempts.first
        assert attempts.may_try(0)
    with Attempts(tmp_path, part) as attempts:
        assert attempts.first


(_PART,) = cut([Path("a.png")], 1)


def _end(folder: Path, error: type[BaseException], index: int | None = None) -> None:
    """Let an attempt at the first part, and at an image of it, end with an error."""
    with contextlib.suppress(error), Attempts(folder, _PART) as attempts:
        assert index is None or attempts.may_try(index)
        raise error


@pytest.mark.parametrize("died", [False, True])
def test_a_full_disk_is_no_death_of_an_image(
    told: Work, images: list[Path], died: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often the results can't be written, the last image is scored once they can."""
    (part, *_) = cut(images, 3)
    if died:
        _end(told.folder, _Died)
    worker = Worker(told)

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(worker_module, "write_part", full)
        for _ in range(2 * MOST):
            with pytest.raises(OSError, match="No space"):
                worker.score(part)
    with Attempts(told.folder, part) as attempts:
        assert attempts.first is not died
    worker.score(part)
    assert [each["code"] for each in rows(told.folder)] == [None] * 3


@pytest.mark.parametrize("ended", [KeyboardInterrupt, SystemExit, RuntimeError])
def test_an_interruption_is_no_death_and_deaths_of_before_are_remembered(
    tmp_path: Path, ended: type[BaseException]
) -> None:
    _end(tmp_path, _Died)
    for error in [_Died] * (MOST - 1) + [ended] * 5 + [_Died]:
        _end(tmp_path, error, index=0)
    with Attempts(tmp_path, _PART) as attempts:
        assert not attempts.may_try(0)


def test_without_room_for_the_record_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _end(tmp_path, _Died)
    write, full = Attempts._write, iter([False, True])

    def written(self: Attempts) -> None:
        if next(full):
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self)

    monkeypatch.setattr(Attempts, "_write", written)
    _end(tmp_path, RuntimeError)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("workers", [1, 40])
def test_workers_are_not_started_without_end(tmp_path: Path, workers: int) -> None:
    """Each is started once before any has died."""
    starts = Starts(tmp_path, workers)
    for _ in range(workers + MOST_DEATHS):
        starts.another()
    with pytest.raises(Stopped, match=f"died {MOST_DEATHS} times"):
        Starts(tmp_path, workers).another()
    starts.forget()
    starts.another()


def test_a_worker_that_would_score_otherwise_does_not(told: Work, asg_bundle: Path) -> None:
    other = replace(told, open_scorer=lambda: Scorer.open(asg_bundle, site=None))
    with pytest.raises(Stopped, match="other scores"):
        Worker(other)


def test_a_file_of_other_results_is_refused(told: Work, images: list[Path]) -> None:
    worker, parts = Worker(told), cut(images, 3)
    for part in parts:
        worker.score(part)
    (first, second, _) = [told.folder / part.file for part in parts]
    content = first.read_bytes()

    def refused(**changes: Any) -> str:
        with pytest.raises(PromptRayError) as error:
            read_outcomes(told.folder, parts[0], replace_run(told, **changes))
        assert error.value.code == "batch.state"
        assert "DOE" not in str(error.value)
        return str(error.value.found)

    assert refused(strict=True) == "results of another run"
    first.write_bytes(second.read_bytes())
    assert refused() == "other images than it must hold"
    first.write_bytes(content)
    table = pq.read_table(first)
    foreign = pa.array(["f" * 64] * table.num_rows)
    pq.write_table(table.set_column(table.schema.get_field_index("bundle"), "bundle", foreign), first)
    assert refused() == "scores of another bundle"
    first.write_bytes(content[:-20])
    assert "Arrow" in refused()
    first.unlink()
    assert refused() == "FileNotFoundError"


def replace_run(told: Work, **changes: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(told.run, **changes)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_text_has_a_row() -> None:
    error = ScoringError("score.fault", "x")
    found = row(0, Path(os.fsdecode(b"film-\xff.png")), "0", Refused(error, "film"))
    assert found["image"] == "film-\\udcff.png"
