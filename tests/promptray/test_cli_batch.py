"""``promptray batch`` through Ray: as ``promptray score``, and once for each image whatever is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from promptray.calibrate.batch.score import score_batch
from promptray.runtime.cores import DECODE_THREADS
from promptray.runtime.errors import PromptRayError
from promptray.runtime.scorer import Scorer
from tests.calibrate.batch.runs import PATIENT, archive
from tests.promptray.command_line import Call

pytestmark = pytest.mark.slow


@pytest.fixture
def images(tmp_path: Path, image: Path) -> list[Path]:
    """Seven images in the folder of a patient, the last of them broken."""
    return archive(tmp_path / "archive", image, 7)


def rows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder).to_pylist()
    return sorted(found, key=lambda each: each["index"])


def left_behind() -> set[str]:
    """Folders of Ray sessions."""
    return {each for each in os.listdir(tempfile.gettempdir()) if each.startswith("promptray-ray-")}


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    before = left_behind()
    yield
    import ray

    assert not ray.is_initialized()
    assert left_behind() <= before
    assert not (Path.home() / ".ray").exists()


def test_it_scores_as_score_does(
    call: Call, bundle: Path, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # a cluster that nobody asked this call to use
    common = ("--modality", "DX", "--no-site", "--threads", 1, "--json")
    out = tmp_path / "scores"
    listed = tmp_path / "list.txt"
    listed.write_text(f"{images[-1]}\n", encoding="utf-8")
    own = tmp_path / "own"
    own.mkdir()
    images[-1].rename(own / images[-1].name)
    listed.write_text(f"{own / images[-1].name}\n", encoding="utf-8")
    answer = call(
        "batch",
        bundle,
        tmp_path / "archive",
        "--list",
        listed,
        "-o",
        out,
        "--workers",
        2,
        "--part",
        2,
        *common,
    )
    assert answer.code == 1, answer.err
    (summary,) = answer.documents
    assert {name: summary[name] for name in ("images", "scored", "refused", "parts", "parts_before")} == {
        "images": 7, "scored": 6, "refused": {"image.broken": 1}, "parts": 4, "parts_before": 0,
    }  # fmt: skip
    assert PATIENT not in answer.err
    files = [*images[:-1], own / images[-1].name]
    scored = call("score", bundle, *files, *common)
    assert scored.code == 1
    found = rows(out)
    assert [each["image"] for each in found] == [str(file) for file in files]
    for each, document in zip(found, scored.documents, strict=True):
        if "error" in document:
            assert (each["status"], each["code"]) == ("refused", document["error"]["code"])
            continue
        own_scores = [
            (finding["head"], finding["key"], finding["score"]["logit"]) for finding in document["findings"]
        ]
        assert [(score["head"], score["key"], score["logit"]) for score in each["scores"]] == own_scores
        assert each["bundle"] == document["bundle"]["sha256"]
    # Called again there is nothing to do, and Ray is not started for it.
    again = call(
        "batch",
        bundle,
        tmp_path / "archive",
        "--list",
        listed,
        "-o",
        out,
        "--workers",
        2,
        "--part",
        2,
        *common,
    )
    assert again.code == 1
    assert again.documents[0]["parts_before"] == 4
    assert rows(out) == found
    other = call("batch", bundle, images[0], "-o", out, *common)
    assert other.code == 1
    assert other.documents[0]["error"]["code"] == "batch.state"


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_paths_of_undecodable_bytes_are_scored_and_ray_is_not_told_the_command_line(
    bundle: Path, image: Path, tmp_path: Path
) -> None:
    """Ray keeps the command line of each job as text: told this one, it would fail."""
    film, out = (tmp_path / os.fsdecode(name) for name in (b"DOE^JANE \xff.png", b"scores \xff"))
    film.write_bytes(image.read_bytes())
    command = [
        sys.executable, "-m", "promptray", "batch", str(bundle), str(film), "-o", str(out),
        "--modality", "DX", "--no-site", "--workers", "1", "--threads", "1", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["scored"] == 1
    assert b"DOE" not in done.stderr
    with (out / "part-000000.parquet").open("rb") as file:
        (found,) = pq.read_table(file).to_pylist()
    assert found["image"].endswith("DOE^JANE \\udcff.png")


def test_a_killed_driver_goes_on(bundle: Path, image: Path, tmp_path: Path) -> None:
    """What was finished before stays as it is; every image has one row in the end."""
    images = archive(tmp_path / "archive", image, 20, broken=0)
    out = tmp_path / "scores"
    command = [
        sys.executable, "-m", "promptray", "batch", str(bundle), str(tmp_path / "archive"), "-o", str(out),
        "--modality", "DX", "--no-site", "--workers", "2", "--threads", "1", "--part", "1", "--json",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as driver:
        deadline = time.monotonic() + 120
        while not list(out.glob("part-*.parquet")):
            if driver.poll() is not None:
                assert driver.stderr is not None
                pytest.fail(driver.stderr.read().decode())
            assert time.monotonic() < deadline, "no part was finished"
            time.sleep(0.02)
        driver.kill()
    before = {path.name: path.read_bytes() for path in out.glob("part-*.parquet")}
    _remove_what_a_killed_driver_left()
    done = subprocess.run(command, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert 1 <= summary["parts_before"] < 20
    assert summary["scored"] == 20
    assert all((out / name).read_bytes() == content for name, content in before.items())
    found = rows(out)
    assert [each["index"] for each in found] == list(range(20))
    assert [each["image"] for each in found] == [str(each) for each in images]
    assert PATIENT.encode() not in done.stderr


def _remove_what_a_killed_driver_left() -> None:
    """A killed driver cannot remove its session's folder; Ray's processes end by themselves."""
    import shutil

    for name in left_behind():
        shutil.rmtree(Path(tempfile.gettempdir()) / name, ignore_errors=True)


def _opened(mark: Path, deadly: str, path: str, **options: Any) -> Any:
    """Open a scorer whose process is killed the first time that it meets an image; says where it runs."""

    class Mortal:
        def __init__(self) -> None:
            self._scorer = Scorer.open(path, **options)

        def __enter__(self) -> Any:
            return self

        def __exit__(self, *error: object) -> None:
            self._scorer.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._scorer, name)

        def score_many(self, sources: list[Path], **declared: Any) -> Iterator[Any]:
            for source in sources:
                if source.name == deadly and not mark.exists():
                    import ray

                    told = [os.environ["RAY_USAGE_STATS_ENABLED"], ray.util.get_node_ip_address()]
                    mark.write_text(" ".join([*told, os.environ[DECODE_THREADS]]))
                    os.kill(os.getpid(), signal.SIGKILL)
                yield from self._scorer.score_many([source], **declared)

    return Mortal()


def _only_here(driver: int, path: str, **options: Any) -> Scorer:
    if os.getpid() != driver:
        raise MemoryError(PATIENT)
    return Scorer.open(path, **options)


def test_workers_that_cannot_be_started_end_the_call(
    bundle: Path, images: list[Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PromptRayError) as refused:
        score_batch(
            bundle, images, tmp_path / "scores", modality="DX", part=3, workers=1, threads=1, site=None,
            open_scorer=partial(_only_here, os.getpid()),
        )  # fmt: skip
    assert (refused.value.code, refused.value.found) == ("batch.worker", "MemoryError")
    assert PATIENT not in str(refused.value)
    assert PATIENT not in "".join(capfd.readouterr())
    assert not list((tmp_path / "scores").glob("part-*"))


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no such signal here")
def test_a_killed_worker_is_replaced(
    bundle: Path, images: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "mark"
    monkeypatch.delenv(DECODE_THREADS, raising=False)
    report = score_batch(
        bundle, images, tmp_path / "scores", modality="DX", part=3, workers=2, threads=1, site=None,
        open_scorer=partial(_opened, mark, images[1].name),
    )  # fmt: skip
    told = mark.read_text().split()
    assert told[:2] == ["0", "127.0.0.1"], "nothing is told to anybody, nobody else can reach it"
    assert told[2:] == ["1"], "JPEG 2000 is decoded with a worker's threads"
    assert (report.scored, report.refused) == (6, {"image.broken": 1})
    found = rows(tmp_path / "scores")
    assert [each["index"] for each in found] == list(range(7))
    assert not list((tmp_path / "scores").glob(".part*"))
