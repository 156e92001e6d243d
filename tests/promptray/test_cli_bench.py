"""``promptray bench`` from beginning to end, on a miniature bundle, by a clock that counts its readings."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jsonschema
import msgspec
import numpy as np
import pytest
from PIL import Image

from promptray.calibrate.bench import run as bench_run
from promptray.calibrate.bench import sweeps
from promptray.calibrate.bench.against import differences, read_report
from promptray.runtime.cores import DECODE_THREADS
from tests import dicom_factory
from tests.calibrate.bench.fakes import CountingClock
from tests.calibrate.bench.wheel import HERE
from tests.fuzz.small_bundle import write_small
from tests.promptray.command_line import Answer, Call

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    write_small(folder)
    return folder / "small.bundle"


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "films"
    folder.mkdir()
    (folder / "doe^jane.dcm").write_bytes(dicom_factory.file(dicom_factory.ramp(64, 48), Modality="DX"))
    picture = np.linspace(0, 255, 64 * 48).astype(np.uint8).reshape(64, 48)
    Image.fromarray(picture).save(folder / "doe^john.png")
    return folder


@pytest.fixture
def bench(call: Call, small_bundle: Path, images: Path, monkeypatch: pytest.MonkeyPatch) -> Call:
    """``bench("--budget", 2, ...)``; few and small films in sweeps, one new process."""
    monkeypatch.setattr(sweeps, "SIDES", (64, 128))
    monkeypatch.setattr(sweeps, "PROMPTS", (1, 5))
    monkeypatch.setattr(sweeps, "FILM", (96, 80))
    monkeypatch.setattr(bench_run, "MOST_STARTS", 1)
    monkeypatch.setattr(bench_run, "MachineClock", CountingClock)

    def run(*options: object) -> Answer:
        return call("bench", small_bundle, images, "--modality", "DX", "--no-site", *options)

    return run


def test_everything_is_measured_and_written(bench: Call, tmp_path: Path) -> None:
    out = tmp_path / "report"
    every: tuple[object, ...] = (
        "--scenario",
        "all",
        "--sweep",
        "all",
        "--latency-bound",
        1000,
        "-o",
        out,
        "--json",
    )
    if HERE:
        every += ("--loadgen",)
    answer = bench("--budget", 5, "--samples", 2, "--sla", "p50<60s,rss<100GB,cold<600s", *every)
    assert answer.code == 1, answer.err  # one start has no interval
    (report,) = answer.documents
    assert json.loads((out / "bench.json").read_bytes()) == report
    schema = json.loads((ROOT / "docs" / "bench.schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator(schema).validate(report)
    assert [each["name"] for each in report["scenarios"]] == [
        "single-stream",
        "multi-stream",
        "server",
        "offline",
    ]
    assert [each["met"] for each in report["sla"]] == [True, True, None]
    assert report["start"]["rounds"] == 1
    by_loadgen = {each["scenario"]: each for each in report["loadgen"]}
    if HERE:
        rates = [each["rate"] for each in report["scenarios"][2]["server"]["trials"]]
        assert {"single-stream", "multi-stream", "offline"} <= by_loadgen.keys()
        assert by_loadgen["multi-stream"]["images"] == 2 * by_loadgen["multi-stream"]["queries"]
        assert "server" not in by_loadgen or by_loadgen["server"]["rate"] in rates
    else:
        assert not by_loadgen
    require_stages(report["scenarios"][0])
    sweep = {each["name"]: each["rows"] for each in report["sweeps"]}
    assert [row["setting"] for row in sweep["prompts"]] == ["1", "5"]
    assert {"image", "head", "post"} == set(sweep["prompts"][0]["stages"])
    assert all(
        row["not_run"] is None for name in ("prompts", "threads", "streams", "size") for row in sweep[name]
    )
    made = [row["setting"] for row in sweep["syntax"] if row["milliseconds"]]
    assert "JPEG 2000 Lossless" in made
    assert all(row["not_run"] for row in sweep["syntax"] if row["setting"] not in made)
    require_page(out / "bench.html")
    require_no_names(answer, out)


def require_stages(scenario: dict[str, Any]) -> None:
    names = [stage["name"] for stage in scenario["stages"]]
    assert names == ["read", "decode", "window", "check", "resize", "image", "head", "post", "rest"]
    whole = sum(stage["mean"] for stage in scenario["stages"])
    assert whole == pytest.approx(scenario["latency"]["mean"], rel=1e-3)
    for row in scenario["latency"]["percentiles"]:
        assert row["early_stopping_ms"] >= row["plain_ms"]


def require_page(path: Path) -> None:
    page = path.read_text(encoding="utf-8")
    plots = re.findall(r"<svg.*?</svg>", page)
    assert len(plots) >= 9
    for plot in plots:
        assert "nan" not in "".join(ElementTree.fromstring(plot).itertext())
    assert re.findall(r"<script|<link|src=|https?:", page) == []
    assert "single-stream: stages" in page


def require_no_names(answer: Answer, out: Path) -> None:
    written = [answer.out, answer.err, *(path.read_text(encoding="utf-8") for path in out.iterdir())]
    for text in written:
        for name in ("doe", "films", str(out.parent), dicom_factory.NAME, "1.2.3.1"):
            assert name not in text


def test_the_table_for_people_says_what_is_not_known(bench: Call) -> None:
    answer = bench("--budget", 1, "--no-start")
    assert answer.code == 0, answer.err
    assert "early-stopping ms" in answer.out
    assert "stages, whose means add up" in answer.out
    assert "host-to-device and device-to-host: none" in answer.out
    assert "not known: " in answer.out  # the GPU
    assert "doe" not in answer.out + answer.err


def test_a_condition_that_is_not_met_is_exit_code_1(bench: Call) -> None:
    answer = bench("--budget", 1, "--no-start", "--sla", "p50<1us,rss<100GB")
    assert answer.code == 1
    assert "Not met: p50<1us." in answer.err
    answer = bench("--budget", 1, "--no-start", "--sla", "gpu<1GB")
    assert answer.code == 1  # not known is not met
    assert "Not met: gpu<1GB." in answer.err


def test_latencies_at_a_given_rate_are_held_to_several_percentiles(bench: Call) -> None:
    every = ("--scenario", "server", "--rate", 40, "--sla", "p50<60s,p10<60s", "--json")
    answer = bench("--budget", 2, "--no-start", *every)
    assert answer.code == 0, answer.err
    (report,) = answer.documents
    assert [term["met"] for term in report["sla"]] == [True, True]
    server = report["scenarios"][0]["server"]
    assert [(each["percentile"], each["ms"]) for each in server["bounds"]] == [(50, 60_000), (10, 60_000)]
    assert server["rate"] == 40


def test_a_report_is_compared_with_an_older_one(bench: Call, tmp_path: Path) -> None:
    assert bench("--budget", 1, "--no-start", "-o", tmp_path / "old").code == 0
    old = tmp_path / "old" / "bench.json"
    report = json.loads(old.read_bytes())
    latency = report["scenarios"][0]["latency"]
    for bound in ("low", "value", "high"):
        latency["median"][bound] /= 1000
    read = next(each for each in report["scenarios"][0]["stages"] if each["name"] == "read")
    read["median"].update(low=0, value=5e-324, high=1e-300)  # no number is its ratio
    report["machine"]["cpu"] = "another"
    old.write_text(json.dumps(report))
    every = ("--scenario", "multi-stream", "--scenario", "single-stream")
    answer = bench("--budget", 1.5, "--no-start", "--samples", 2, *every, "--against", old, "--json")
    assert answer.code == 0, answer.err
    found = answer.documents[0]["against"]
    assert found["changes"][0]["what"] == "single-stream, whole"
    assert found["changes"][0]["verdict"] == "slower"
    assert [each["ratio"] for each in found["changes"] if each["what"] == "single-stream, read"] == [None]
    assert not [each for each in found["changes"] if "multi-stream" in each["what"]]  # the old one has none
    assert [each for each in found["differs"] if each.startswith("CPU: another -> ")]
    assert not [each for each in found["differs"] if each.startswith(("images", "bundle", "backend"))]


def test_what_else_may_be_why_is_listed(bench: Call, tmp_path: Path) -> None:
    answer = bench("--budget", 1, "--no-start", "-o", tmp_path / "old", "--backend", "onnxruntime-cpu")
    path = tmp_path / "old" / "bench.json"
    old = read_report(path)
    assert f"threads: {old.backend.reason}" in answer.out
    assert old.backend.reason in (tmp_path / "old" / "bench.html").read_text(encoding="utf-8")
    images = [
        msgspec.structs.replace(image, transfer_syntax=image.transfer_syntax and "1.2.840.10008.1.2.4.90")
        for image in old.images
    ]
    backend = msgspec.structs.replace(old.backend, reason="tuned here: openvino was slower")
    new = msgspec.structs.replace(old, images=images, backend=backend)
    assert differences(old, old) == []
    found = dict(each.split(": ", 1) for each in differences(old, new))
    assert set(found) == {"images", "why it ran"}
    assert "1 of 64x48 dicom 1.2.840.10008.1.2.1, 1 of 64x48 png -> " in found["images"]
    assert "1 of 64x48 dicom 1.2.840.10008.1.2.4.90" in found["images"]
    assert found["why it ran"].endswith("tuned here: openvino was slower")


def test_an_image_that_is_refused_is_left_out_by_number(bench: Call, images: Path) -> None:
    (images / "aaa.png").write_bytes(b"no picture")
    answer = bench("--budget", 1, "--no-start", "--json")
    assert answer.code == 1
    (report,) = answer.documents
    assert report["refused"] == [{"image": "image 1", "code": "image.format"}]
    assert [image["number"] for image in report["images"]] == [2, 3]
    assert "1 images were refused" in answer.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--sla", "p99<50"), "--sla"),
        (("--sla", ""), "--sla"),
        (("--budget", "0.5"), "--budget"),
        (("--budget", "nan"), "--budget"),
        (("--scenario", "server"), "--latency-bound"),
        (("--percentile", "99", "--sla", "p50<50ms", "--scenario", "server"), "--latency-bound"),
        (("--sla", "offline>3/s"), "--scenario offline"),
        (("--scenario", "batch"), "--scenario"),
        (("--rate", "3"), "--scenario server"),
        (("--scenario", "offline", "--latency-bound", "3"), "--scenario server"),
        (("--percentile", "99.99"), "--percentile"),
        (("--scenario", "server", "--rate", "1e308"), "--rate"),
        (("--budget", "1e308"), "--budget"),
    ],
)
def test_wrong_usage_is_exit_code_2(bench: Call, options: tuple[str, ...], says: str) -> None:
    answer = bench(*options)
    assert answer.code == 2
    assert says in answer.err
    assert answer.out == ""


def test_no_image_is_refused(call: Call, small_bundle: Path, images: Path, tmp_path: Path) -> None:
    assert call("bench", small_bundle).code == 2
    (tmp_path / "empty").mkdir()
    assert call("bench", small_bundle, tmp_path / "empty").code == 2
    answer = call("bench", small_bundle, images / "doe^john.png", "--no-site", "--json")  # no modality
    assert answer.code == 1
    assert answer.documents[0]["error"]["code"] == "bench.images"
    assert "image 1: image.modality-undeclared" in answer.err
    assert "doe" not in answer.out + answer.err


def test_a_report_that_cannot_be_read_is_refused_before_the_run(bench: Call, tmp_path: Path) -> None:
    answer = bench("--against", tmp_path / "none.json", "--json")
    assert answer.code == 1
    assert answer.documents[0]["error"]["code"] == "bench.report"


def test_a_budget_for_no_percentile_is_refused(bench: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(CountingClock):
        def now(self) -> float:
            self.time += 0.5
            return self.time

    monkeypatch.setattr(bench_run, "MachineClock", Slow)
    answer = bench("--budget", 3, "--no-start", "--json")
    assert answer.code == 1
    assert answer.documents[0]["error"]["code"] == "bench.budget"
    assert "raise --budget" in answer.err


def test_jpeg_2000_is_decoded_with_the_threads_that_score_takes(bench: Call) -> None:
    (report,) = bench("--budget", 1, "--no-start", "--threads", 3, "--json").documents
    assert report["protocol"]["decode_threads"] == os.environ[DECODE_THREADS] == "3"
    (report,) = bench("--budget", 1, "--no-start", "--threads", 1, "--json").documents
    assert report["protocol"]["decode_threads"] == "3"  # whoever set the variable knows better


def test_what_scores_with_reduced_decode_is_benched_with_it(bench: Call) -> None:
    (report,) = bench("--budget", 1, "--reduced-decode", "--reproducible", "--json").documents
    assert report["protocol"]["reduced_decode"] is report["protocol"]["reproducible"] is True
    assert report["start"]["rounds"] == 1
    assert "lower resolution" in report["backend"]["gated_as"]
    assert report["backend"]["decode"] is None
    assert "Decoding at a lower resolution passed no gate here, so `score` refuses it." in report["notes"]
    answer = bench("--reduced-decode", "--prepare", "device")
    assert answer.code == 2
    assert "images that the CPU prepares" in answer.err
