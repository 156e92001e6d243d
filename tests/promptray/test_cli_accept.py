"""``promptray accept`` from beginning to end, on miniature bundles, by a clock that counts its readings."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import safetensors.numpy
from msgspec.structs import replace

from promptray.calibrate.accept import run as accept_run
from promptray.calibrate.bench import run as bench_run
from promptray.calibrate.bench.machine import Watch
from promptray.calibrate.bench.report import Gpu
from promptray.runtime.bundle import Bundle
from tests import bundle_factory as factory
from tests.calibrate.accept.variants import provenance, write_films, write_variant
from tests.calibrate.bench.fakes import CountingClock
from tests.promptray.command_line import Answer, Call

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "docs" / "acceptance.schema.json").read_text(encoding="utf-8")
)
GOLDEN = "golden/golden.safetensors"
FILMS = 8
IDLE = Gpu(
    name="made", clock_mhz=1500.0, memory_clock_mhz=None, temperature_c=61.0, power_w=250.5,
    memory_used_bytes=123, throttled=[],
)  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_variant(tmp_path_factory.mktemp("accept"), "small")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A bundle to be damaged."""
    return write_variant(tmp_path, "copy").path


@pytest.fixture
def films(tmp_path: Path) -> Path:
    return write_films(tmp_path / "films", FILMS)


@pytest.fixture
def accept(call: Call, films: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """``accept(bundle, ...)`` on the films, into the folder ``report``."""
    monkeypatch.setattr(bench_run, "MachineClock", CountingClock)

    def run(bundle: Bundle | Path, *options: object, sla: str = "p50<60s,rss<100GB") -> Answer:
        path = bundle.path if isinstance(bundle, Bundle) else bundle
        common = (
            "--images",
            films,
            "--modality",
            "DX",
            "--budget",
            1,
            "--threads",
            1,
            "-o",
            tmp_path / "report",
        )
        site = () if "--site" in options else ("--no-site",)
        return call("accept", path, *common, "--budget", 1, "--sla", sla, *site, *options)

    return run


def report_in(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "report" / "accept.json").read_bytes())
    jsonschema.Draft202012Validator(SCHEMA).validate(document)
    return document


def verdicts(document: dict[str, Any]) -> dict[str, str]:
    return {part["name"]: part["verdict"] for part in document["parts"]}


def reason(document: dict[str, Any], name: str) -> str:
    return str(next(part["reason"] for part in document["parts"] if part["name"] == name))


def test_what_passes_every_part_is_accepted(accept: Call, small: Bundle, tmp_path: Path) -> None:
    answer = accept(small, "--json")
    assert answer.code == 0, answer.err
    (document,) = answer.documents
    report = report_in(tmp_path)
    assert document["report"] == report
    content = (tmp_path / "report" / "accept.json").read_bytes()
    assert document["sha256"] == hashlib.sha256(content).hexdigest()
    assert report["verdict"] == "accepted"
    assert list(verdicts(report)) == ["integrity", "golden", "images", "agreement", "latency"]
    assert set(verdicts(report).values()) == {"passed"}
    assert reason(report, "agreement").startswith("golden pictures only")
    assert report["agreement"]["against"] == "golden pictures only"
    assert report["bundle"]["sha256"] == small.hash
    assert report["bundle"]["model"]["intended_use"] == "tests"
    assert (report["images"]["given"], report["images"]["scored"]) == (FILMS, FILMS)
    assert [image["number"] for image in report["latency"]["images"]] == list(range(1, FILMS + 1))
    assert datetime.fromisoformat(report["created"]).utcoffset() is not None
    assert {"python", "numpy", "onnxruntime"} <= report["versions"].keys()
    assert report["parameters"]["sla"] == "p50<60s,rss<100GB"
    assert report["latency"]["protocol"]["decode_threads"] == "1"  # as `score` decodes with these threads


def test_memory_is_not_that_of_the_process_that_verified(
    accept: Call, small: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_run, "peak_bytes", lambda: 10**12)  # the text encoder was compiled in it
    answer = accept(small)
    assert answer.code == 0, answer.err
    latency = report_in(tmp_path)["latency"]
    assert 10**7 < latency["memory"]["peak_bytes"] < 10**11
    assert any("a new process that scores the largest images" in note for note in latency["notes"])
    accept(small, "-o", tmp_path / "second", sla="p50<60s")
    latency = json.loads((tmp_path / "second" / "accept.json").read_bytes())["latency"]
    assert any("has held the text encoder as well" in note for note in latency["notes"])


def test_a_gpu_that_slows_down_at_work_is_told_although_it_idles_before_and_after(
    accept: Call, small: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    working = False

    class Card:
        source = "nvml"

        def read(self) -> Gpu:
            return replace(IDLE, throttled=["software power cap"] if working else [])

    def held(*arguments: Any) -> Any:
        nonlocal working
        working = True
        return hold(*arguments)

    def scored(*arguments: Any, **options: Any) -> Any:
        nonlocal working
        working = False
        return score(*arguments, **options)

    hold, score = accept_run.hold_latency, accept_run.score_all
    monkeypatch.setattr(accept_run, "hold_latency", held)
    monkeypatch.setattr(accept_run, "score_all", scored)
    monkeypatch.setattr(accept_run, "Watch", partial(Watch, (Card,)))
    assert accept(small).code == 0
    machine = report_in(tmp_path)["machine"]
    assert "GPU: software power cap" in machine["throttled"]
    assert [each["gpu"]["throttled"] for each in machine["at_work"]] == [["software power cap"]]


def test_what_is_deployed_is_what_is_accepted(accept: Call, small: Bundle, tmp_path: Path) -> None:
    assert accept(small, "--reduced-decode", "--reproducible").code == 1
    report = report_in(tmp_path)
    assert report["parameters"]["reduced_decode"] is report["parameters"]["reproducible"] is True
    for backend in (report["backend"], report["latency"]["backend"]):
        assert "lower resolution" in backend["gated_as"]
    assert report["latency"]["protocol"]["reproducible"] is True
    found = verdicts(report)
    assert found.pop("agreement") == "inconclusive"  # golden pictures are not decoded so
    assert set(found.values()) == {"passed"}
    assert accept(small, "--reduced-decode", "--reference", small.path, "-o", tmp_path / "second").code == 1
    second = json.loads((tmp_path / "second" / "accept.json").read_bytes())
    (head,) = second["agreement"]["heads"]
    assert {finding["max_delta"] for finding in head["gates"]["findings"]} == {0}


def test_the_page_is_for_the_file_and_names_no_patient(accept: Call, small: Bundle, tmp_path: Path) -> None:
    answer = accept(small)
    assert answer.code == 0, answer.err
    page = (tmp_path / "report" / "accept.html").read_text(encoding="utf-8")
    seal = hashlib.sha256((tmp_path / "report" / "accept.json").read_bytes()).hexdigest()
    assert seal in page
    assert seal in answer.out
    assert "small: ACCEPTED" in page
    assert "Signatures" in page
    assert re.findall(r"<script|<link|src=|https?:", page) == []
    texts = [answer.out, answer.err, page, (tmp_path / "report" / "accept.json").read_text(encoding="utf-8")]
    for text in texts:
        for name in ("doe", "films", str(tmp_path)):
            assert name not in text


def test_a_limit_that_is_missed_or_cannot_be_told_is_not_accepted(
    accept: Call, small: Bundle, tmp_path: Path
) -> None:
    assert accept(small, sla="p50<1us").code == 1
    report = report_in(tmp_path)
    assert report["verdict"] == "not accepted"
    assert verdicts(report)["latency"] == "refused"
    answer = accept(small, "-o", tmp_path / "second", sla="p99.9<60s")
    assert answer.code == 1
    assert "INCONCLUSIVE" in answer.out
    assert "takes 6636" in answer.out


def test_a_reference_that_agrees_is_inconclusive_on_too_few_films(
    accept: Call, small: Bundle, tmp_path: Path
) -> None:
    other = write_variant(tmp_path, "other", provenance=provenance(recipe={"name": "b", "sha256": "2" * 64}))
    assert accept(small, "--reference", other.path).code == 1
    report = report_in(tmp_path)
    assert verdicts(report)["agreement"] == "inconclusive"
    assert "299 independent decisions would settle it" in reason(report, "agreement")
    assert report["agreement"]["reference"]["sha256"] == other.hash
    (head,) = report["agreement"]["heads"]
    assert {finding["max_delta"] for finding in head["gates"]["findings"]} == {0}
    assert {gate["name"] for gate in head["gates"]["gates"]} >= {"flips", "spearman", "map_overlap"}


def test_a_reference_that_disagrees_refuses(accept: Call, small: Bundle, tmp_path: Path) -> None:
    other = write_variant(tmp_path, "other", noise=0.02)
    answer = accept(small, "--reference", other.path)
    assert answer.code == 1
    report = report_in(tmp_path)
    assert verdicts(report)["agreement"] == "refused"
    assert "rank correlation" in reason(report, "agreement")
    assert "REFUSED" in (tmp_path / "report" / "accept.html").read_text(encoding="utf-8")


def test_a_foreign_reference_and_the_bundle_itself_are_refused(
    accept: Call, small: Bundle, tmp_path: Path
) -> None:
    checkpoint = {"name": "none.ckpt", "sha256": "3" * 64}
    foreign = write_variant(tmp_path, "foreign", provenance=provenance(checkpoint=checkpoint))
    answer = accept(small, "--reference", foreign.path, "--json")
    assert answer.code == 1
    assert answer.documents[0]["error"]["code"] == "accept.reference"
    assert "another checkpoint" in answer.documents[0]["error"]["message"]
    answer = accept(small, "--reference", small.path, "--json")
    assert answer.documents[0]["error"]["code"] == "accept.reference"
    assert "the bundle itself" in answer.documents[0]["error"]["message"]
    assert list((tmp_path / "report").iterdir()) == []


def test_a_finding_that_the_reference_has_not_is_not_compared(
    accept: Call, call: Call, small: Bundle, site: Path, tmp_path: Path
) -> None:
    other = write_variant(tmp_path, "other", provenance=provenance(recipe={"name": "b", "sha256": "2" * 64}))
    add = ("add", "rib", "There is a rib fracture.", "--site", site)
    assert call("prompts", small.path, *add).code == 0
    assert accept(small, "--reference", other.path, "--site", site).code == 1
    report = report_in(tmp_path)
    assert report["agreement"]["not_compared"] == ["chest: rib"]
    assert "not compared" in reason(report, "agreement")
    (entry,) = report["site"]["entries"]
    assert (entry["kind"], entry["key"]) == ("prompt", "rib")
    assert re.fullmatch("[0-9a-f]{64}", entry["sha256"])
    assert call("prompts", other.path, *add).code == 0
    accept(small, "--reference", other.path, "--site", site, "-o", tmp_path / "second")
    second = json.loads((tmp_path / "second" / "accept.json").read_bytes())
    assert second["agreement"]["not_compared"] == []


def test_an_image_that_the_door_refuses_counts(
    accept: Call, small: Bundle, films: Path, tmp_path: Path
) -> None:
    (films / "a^note.txt").write_text("no image", encoding="utf-8")
    assert accept(small).code == 1
    report = report_in(tmp_path)
    assert verdicts(report)["images"] == "refused"
    assert report["images"]["refused"] == [{"image": "file 1", "code": "image.format"}]
    assert report["images"]["refused_by_code"] == {"image.format": 1}
    assert report["latency"]["refused"] == report["images"]["refused"]
    assert report["latency"]["images"][0]["number"] == 2
    answer = accept(small, "--refused-at-most", 0.2, "-o", tmp_path / "second")
    assert answer.code == 0, answer.out


def test_no_image_that_can_be_scored_leaves_nothing_to_accept(
    accept: Call, small: Bundle, films: Path, tmp_path: Path
) -> None:
    for film in films.iterdir():
        film.write_bytes(b"no image")
    assert accept(small, "--refused-at-most", 1).code == 1
    found = verdicts(report_in(tmp_path))
    assert (found["images"], found["latency"]) == ("refused", "inconclusive")
    for film in films.iterdir():
        film.unlink()
    answer = accept(small, "-o", tmp_path / "second", "--json")
    assert answer.documents[0]["error"]["code"] == "bench.images"


def test_a_table_of_absent_images_is_no_set_to_accept_on(accept: Call, small: Bundle, tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("file,finding 0\nabsent.png,1\n", encoding="utf-8")
    answer = accept(small, "--labels", table, "--missing", "count", "--json")
    assert answer.code == 1
    assert answer.documents[0]["error"]["code"] == "bench.images"


def test_a_site_that_is_changed_meanwhile_leaves_no_report(
    accept: Call, call: Call, small: Bundle, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = accept_run.hold_latency

    def changing(*arguments: Any) -> Any:
        assert call("prompts", small.path, "add", "rib", "There is a rib fracture.", "--site", site).code == 0
        return hold(*arguments)

    monkeypatch.setattr(accept_run, "hold_latency", changing)
    answer = accept(small, "--site", site, "--json")
    assert answer.documents[-1]["error"]["code"] == "site.changed"
    assert list((tmp_path / "report").iterdir()) == []


def test_a_damaged_file_is_reported_and_no_more_is_run(accept: Call, copy: Path, tmp_path: Path) -> None:
    content = bytearray((copy / "tokenizer.json").read_bytes())
    content[20] ^= 1
    (copy / "tokenizer.json").write_bytes(content)
    assert accept(copy).code == 1
    report = report_in(tmp_path)
    assert list(verdicts(report).values()) == ["refused", *["not run"] * 4]
    assert "[bundle.hash]" in reason(report, "integrity")
    assert report["golden"] is report["latency"] is report["images"] is None


def test_other_golden_answers_are_reported(accept: Call, copy: Path, tmp_path: Path) -> None:
    tensors = safetensors.numpy.load((copy / GOLDEN).read_bytes())
    tensors[f"logits.{factory.HEAD}"] += 1
    factory.relist(copy, GOLDEN, safetensors.numpy.save(tensors))
    assert accept(copy).code == 1
    found = verdicts(report_in(tmp_path))
    assert list(found.values()) == ["passed", "refused", *["not run"] * 3]


def test_a_damaged_site_is_reported_and_a_missing_one_is_a_mistake(
    accept: Call, call: Call, small: Bundle, site: Path, tmp_path: Path
) -> None:
    assert call("prompts", small.path, "add", "rib", "There is a rib fracture.", "--site", site).code == 0
    (payload,) = (site / small.hash / "entries").iterdir()
    payload.write_bytes(b"\0" * payload.stat().st_size)
    answer = accept(small, "--site", site)
    assert answer.code == 1
    report = report_in(tmp_path)
    assert list(verdicts(report).values()) == ["refused", *["not run"] * 4]
    assert "[site.corrupt]" in reason(report, "integrity")
    assert report["site"] is None
    assert str(tmp_path) not in json.dumps(report)
    answer = accept(small, "--site", tmp_path / "nowhere", "-o", tmp_path / "second", "--json")
    assert answer.documents[0]["error"]["code"] == "site.not-found"
    assert list((tmp_path / "second").iterdir()) == []


def test_a_broken_seal_has_no_identity_to_report_on(accept: Call, copy: Path, tmp_path: Path) -> None:
    (copy / "bundle.sha256").write_bytes(b"x")
    answer = accept(copy, "--json")
    assert (answer.code, answer.documents[0]["error"]["code"]) == (1, "bundle.seal")
    assert list((tmp_path / "report").iterdir()) == []


def test_labels_give_patients_and_their_hash(
    accept: Call, small: Bundle, films: Path, tmp_path: Path
) -> None:
    other = write_variant(tmp_path, "other", provenance=provenance(recipe={"name": "b", "sha256": "2" * 64}))
    names = sorted(path.name for path in films.iterdir())
    rows = [f"{name},p{number // 2},{number % 2}" for number, name in enumerate(names)]
    table = tmp_path / "labels.csv"
    table.write_text("\n".join(["file,patient_id,finding 0", *rows]) + "\n", encoding="utf-8")
    assert accept(small, "--labels", table, "--reference", other.path).code == 1
    report = report_in(tmp_path)
    assert report["parameters"]["labels_sha256"] == hashlib.sha256(table.read_bytes()).hexdigest()
    gates = report["agreement"]["heads"][0]["gates"]
    assert (gates["images"], gates["patients"], gates["labelled"]) == (FILMS, FILMS // 2, True)
    assert report["latency"]["images"][0]["number"] == 2  # line 2 of the table


@pytest.mark.parametrize(
    ("sla", "said"),
    [(None, "--sla is required"), ("rss<1GB", "needs a limit of the latency"), ("p99", "is no condition"),
     ("mean<1s,server>1/s", "needs a percentile beside it")],
)  # fmt: skip
def test_without_a_limit_of_latency_nothing_is_proved(
    call: Call, small: Bundle, films: Path, tmp_path: Path, sla: str | None, said: str
) -> None:
    asked = () if sla is None else ("--sla", sla)
    answer = call("accept", small.path, "--images", films, "-o", tmp_path / "report", *asked)
    assert answer.code == 2
    assert said in answer.err
    assert not (tmp_path / "report").exists()


def test_a_budget_that_no_run_has_is_wrong_usage(accept: Call, small: Bundle) -> None:
    answer = accept(small, "--budget", "1e308")
    assert answer.code == 2
    assert "--budget" in answer.err


def test_an_old_report_is_not_written_over(accept: Call, small: Bundle, tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "accept.json").write_bytes(b"old")
    answer = accept(small, "--json")
    assert answer.documents[0]["error"]["code"] == "output.exists"
    assert (tmp_path / "report" / "accept.json").read_bytes() == b"old"
