"""`promptray engine`, on a simulated GPU: from a bundle to scores that come from its engines."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from promptray.calibrate.bench import run as bench_run
from promptray.calibrate.engines import build as build_module
from promptray.calibrate.engines import installed
from promptray.cli.engine_table import engine_rows
from promptray.export.tensorrt import Built, Flavour
from promptray.runtime.bundle import Bundle
from promptray.runtime.engines.facts import EngineSet, EngineSpeed, ImagesGate
from promptray.runtime.engines.store import EngineStore
from promptray.runtime.errors import BuildError
from promptray.runtime.scorer import Scorer
from promptray.runtime.site import Site
from tests.calibrate.accept.variants import write_films
from tests.calibrate.bench.fakes import CountingClock
from tests.engine_bundle import disturbed, write_with_sources
from tests.fake_tensorrt import VERSION, make_plan, simulated_tensorrt
from tests.prepare_bundle import write_with_prepare
from tests.promptray.command_line import Call
from tests.simulated_engines import plans_of

PIXELS = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
FLAVOUR = Flavour("tensorrt", "tensorrt", VERSION)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_with_sources(tmp_path_factory.mktemp("sources") / "mini.bundle", "fp16").path


@pytest.fixture(autouse=True)
def gpu() -> Iterator[Any]:
    with simulated_tensorrt() as (gpu, _):
        yield gpu


@pytest.fixture(autouse=True)
def spoil(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[bytes], bytes]]:
    """A builder of plans for the simulated GPU; what is put into the list changes what it compiles."""
    spoils: list[Callable[[bytes], bytes]] = []

    def build(content: bytes, profiles: Any, settings: Any, flavour: Any, **options: Any) -> Built:
        options["progress"]("compiling", 0.5)
        if options["cancelled"].is_set():
            raise BuildError("engine.cancelled", "cancelled")
        for each in spoils:
            content = each(content)
        plan = make_plan(content, [each.shapes for each in profiles])
        return Built(plan, [], flavour.name, flavour.version, (), 1.0, b"measured")

    monkeypatch.setattr(installed, "build_engine", build)
    monkeypatch.setattr(installed, "load_flavour", lambda name: FLAVOUR)
    return spoils


def test_from_a_bundle_to_scores_of_its_engines(call: Call, bundle: Path, site: Path, gpu: Any) -> None:
    answer = call("engine", bundle, "--backend", "tensorrt", "--precision", "fp32", "--site", site, "--json")
    assert answer.code == 0, answer.err
    assert "minutes" in answer.err
    (document,) = answer.documents
    assert (document["plans"], document["gated_now"], document["gate_title"]) == ("compiled", True, "golden")
    with (
        Scorer.open(bundle, site=None) as on_cpu,
        Scorer.open(bundle, backend="tensorrt", site=site) as on_gpu,
    ):
        expected, found = on_cpu.score(PIXELS, modality="DX"), on_gpu.score(PIXELS, modality="DX")
        assert on_gpu.backend.engines is not None
        assert on_gpu.backend.engines.key == document["key"]
        for key, score in expected.scores.items():
            assert found.scores[key].logit == score.logit


def test_engines_are_accepted_against_the_graphs_of_their_own_bundle(
    call: Call, bundle: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_run, "MachineClock", CountingClock)
    on_gpu = ("--backend", "tensorrt", "--site", site)
    assert call("engine", bundle, *on_gpu, "--precision", "fp32").code == 0
    films = write_films(tmp_path / "films", 4)
    asked = ("--images", films, "--modality", "DX", "--sla", "p50<600s", "--budget", 1, "--json", *on_gpu)
    alone, held = (
        call("accept", bundle, *asked, *against, "-o", tmp_path / name).documents[0]["report"]
        for name, against in (("alone", ()), ("held", ("--reference", bundle)))
    )
    verdicts = [[part["verdict"] for part in report["parts"]] for report in (alone, held)]
    assert verdicts == [[*("passed",) * 3, "inconclusive", "passed"]] * 2
    assert "no --reference" in alone["parts"][3]["reason"]
    (head,) = held["agreement"]["heads"]
    assert {finding["max_delta"] for finding in head["gates"]["findings"]} == {0}
    assert (held["backend"]["name"], head["kind"]) == ("tensorrt", "fp16")
    assert held["agreement"]["reference"]["backend"]["name"] == "onnxruntime-cpu"
    assert [entry["kind"] for entry in held["site"]["entries"]] == ["engine"]


def test_images_prepared_on_the_device_are_accepted_against_the_processor(
    call: Call, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_run, "MachineClock", CountingClock)
    made = write_with_prepare(tmp_path).path
    on_gpu = ("--backend", "tensorrt", "--site", site)
    assert call("engine", made, *on_gpu).code == 0
    asked = ("--images", write_films(tmp_path / "films", 4), "--modality", "DX", "--sla", "p50<600s")
    out = ("--budget", 1, "--json", "-o", tmp_path / "report")
    answer = call("accept", made, *on_gpu, *asked, *out, "--prepare", "device", "--reference", made)
    report = answer.documents[0]["report"]
    assert [part["verdict"] for part in report["parts"]] == [*("passed",) * 3, "inconclusive", "passed"]
    prepared = [report["backend"], report["agreement"]["reference"]["backend"], report["parameters"]]
    assert [each["prepare"] for each in prepared] == ["device", "cpu", "device"]
    assert report["golden"]["level_error"] <= 1
    assert report["latency"]["protocol"]["prepare"] == "device"
    page = (tmp_path / "report" / "accept.html").read_text(encoding="utf-8")
    assert "pixels, prepared on the device" in page


def test_images_prepared_on_the_device(call: Call, site: Path, tmp_path: Path) -> None:
    made = write_with_prepare(tmp_path)
    film = made.path / made.manifest.golden.images[0]
    plain = call("engine", made.path, "--backend", "tensorrt", "--site", site, "--without-prepare")
    assert plain.code == 0, plain.err
    assert "prepared on the device" not in plain.out
    options = ("--modality", "DX", "--site", site, "--backend", "tensorrt", "--prepare", "device", "--json")
    refused = call("score", made.path, film, *options)
    assert refused.code == 1
    assert "engine.no-prepare" in refused.err
    built = call("engine", made.path, "--backend", "tensorrt", "--site", site)
    assert built.code == 0, built.err
    assert "prepared on the device: pixels are off by" in built.out
    (document,) = call("engine", made.path, "--site", site, "--list", "--json").documents
    gates = [row[4] for row in engine_rows(document["engines"])]
    assert sorted(gates) == ["golden", "golden, prepares images"]
    (scored,) = call("score", made.path, film, *options).documents
    assert scored["backend"]["prepare"] == "device"


def test_a_finding_with_the_same_golden_score_everywhere_has_a_share_too(
    call: Call, site: Path, tmp_path: Path
) -> None:
    made = write_with_prepare(tmp_path)
    options = ("engine", made.path, "--backend", "tensorrt", "--site", site)
    assert call(*options).code == 0
    store = EngineStore(Site.open(site, made.hash), made.manifest)
    (facts,) = store.sets
    stored = store.opened(facts)
    assert facts.gate.prepare
    heads = [
        msgspec.structs.replace(head, score_error=0.0, score_tolerance=0.0)
        for head in facts.gate.prepare.heads
    ]
    prepare = msgspec.structs.replace(facts.gate.prepare, heads=heads)
    gate = msgspec.structs.replace(facts.gate, prepare=prepare)
    store.add(msgspec.structs.replace(facts, gate=gate), stored.all_plans())
    again = call(*options)
    assert again.code == 0, again.err
    assert "by 0 (bound 0)" in again.out


def test_plans_of_the_bundle_with_a_compiled_engine_that_prepares_images(
    call: Call, site: Path, tmp_path: Path, gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write_with_prepare(tmp_path)
    monkeypatch.setattr(build_module, "ready_made", lambda *_: plans_of(made, gpu, images=8))
    options = ("engine", made.path, "--backend", "tensorrt", "--site", site, "--json")
    (plain,) = call(*options, "--without-prepare").documents
    (preparing,) = call(*options).documents
    assert plain["plans"] == "of the bundle"
    assert preparing["plans"] == "of the bundle, what prepares images compiled"


def test_it_is_listed_inspected_and_removed(call: Call, bundle: Path, site: Path) -> None:
    assert "no engines" in call("engine", bundle, "--site", site, "--list").out
    call("engine", bundle, "--backend", "tensorrt", "--site", site)
    (document,) = call("engine", bundle, "--site", site, "--list", "--json").documents
    (listed,) = document["engines"]
    assert (listed["unusable"], listed["gate_title"]) == (None, "golden")
    assert "no change of findings." in call("inspect", bundle, "--site", site).out
    (shown,) = call("inspect", bundle, "--site", site, "--json").documents
    assert shown["site"]["engines"] == [listed]
    assert listed["key"] in call("inspect", bundle, "--site", site).out.replace("\n", "")
    removed = call("engine", bundle, "--site", site, "--remove", listed["key"], "--json")
    assert removed.documents == [{"removed": listed["key"]}]
    again = call("engine", bundle, "--site", site, "--remove", listed["key"], "--json")
    assert again.code == 1
    assert again.documents[0]["error"]["code"] == "engine.missing"


def test_it_is_not_built_again_unless_asked(call: Call, bundle: Path, site: Path) -> None:
    options = ("engine", bundle, "--backend", "tensorrt", "--site", site)
    assert "Engines compiled" in call(*options).out
    again = call(*options)
    assert "The site has these engines" in again.out
    assert "minutes" not in again.err
    assert "Engines compiled" in call(*options, "--rebuild").out


def test_a_wrong_engine_is_refused(call: Call, bundle: Path, site: Path, spoil: Any) -> None:
    spoil.append(lambda content: disturbed(content, 0.5))
    answer = call("engine", bundle, "--backend", "tensorrt", "--site", site, "--json")
    assert answer.code == 1
    assert answer.documents[0]["error"]["code"] == "gate.failed"
    assert list(site.iterdir()) == []
    with pytest.raises(Exception, match="promptray engine") as caught:
        Scorer.open(bundle, backend="tensorrt", site=site)
    assert getattr(caught.value, "code", None) == "engine.missing"


def test_the_gates_on_images_and_their_reports(call: Call, bundle: Path, site: Path, tmp_path: Path) -> None:
    """Sixteen pictures are too few, and the report says so where it was asked for."""
    folder = Bundle.open(bundle).path / "golden" / "images"
    options = ("engine", bundle, "--backend", "tensorrt", "--site", site, "--images", folder)
    answer = call(*options, "--report", tmp_path / "gates", "--json")
    assert answer.code == 1, answer.err
    assert answer.documents[0]["error"]["code"] == "gate.inconclusive"
    names = sorted(path.name for path in (tmp_path / "gates").iterdir())
    assert names == ["head-chest.json", "head-chest.txt"]
    assert list(site.iterdir()) == []
    again = call(*options, "--report", tmp_path / "gates", "--json")
    assert again.documents[0]["error"]["code"] == "output.exists"


def test_the_timing_cache_is_kept_where_it_was_asked_for(
    call: Call, bundle: Path, site: Path, tmp_path: Path
) -> None:
    options = ("engine", bundle, "--backend", "tensorrt", "--site", site, "--rebuild", "--timing-cache")
    assert call(*options, "none").code == 0
    assert not (tmp_path / "caches").exists()
    assert call(*options, tmp_path / "caches").code == 0
    (file,) = (tmp_path / "caches").iterdir()
    assert file.read_bytes() == hashlib.sha256(b"measured").digest() + b"measured"


@pytest.mark.parametrize(
    "options",
    [
        ("--list", "--rebuild"),
        ("--list", "--remove", "k"),
        ("--remove", "k", "--precision", "fp16"),
        ("--labels", "films.csv"),
        ("--images", ""),
        ("--images", "films", "--labels", ""),
        ("--report", ""),
        ("--site", ""),
        ("--timing-cache", ""),
        ("--list", "--remove", ""),
        ("--workspace", "99999999999999999999999"),
        ("--precision", "int4"),
        ("--backend", "onnxruntime-cpu"),
    ],
    ids=" ".join,
)
def test_wrong_usage(call: Call, bundle: Path, options: tuple[str, ...]) -> None:
    assert call("engine", bundle, *options, "--json").code == 2


def test_words_for_options_are_of_options(call: Call, bundle: Path, site: Path, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    (tmp_path / "file").touch()
    options = ("engine", bundle, "--backend", "tensorrt", "--site", site, "--images", tmp_path / "films")
    (no_image,) = call(*options, "--json").documents
    assert no_image["error"]["code"] == "gate.images"
    assert "recipe" not in no_image["error"]["cure"]
    assert no_image["error"]["artefact"] == "--images"
    (no_report,) = call(*options, "--report", tmp_path / "file", "--json").documents
    assert no_report["error"]["code"] == "output.unwritable"
    assert "--report" in no_report["error"]["cure"]


def test_an_empty_key_is_no_key(call: Call, bundle: Path, site: Path) -> None:
    answer = call("engine", bundle, "--site", site, "--remove", "", "--json")
    assert answer.code == 1
    assert answer.documents[0]["error"]["code"] == "engine.missing"
    assert list(site.iterdir()) == []


def test_without_any_library_every_reason_is_said(
    call: Call, bundle: Path, site: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(backend: str, *_: object) -> Any:
        raise BuildError("engine.unavailable", f"{backend} is not here", cure="install it")

    monkeypatch.setattr(installed, "open_library", missing)
    answer = call("engine", bundle, "--site", site, "--json")
    assert answer.code == 1
    error = answer.documents[0]["error"]
    assert error["code"] == "engine.unavailable"
    for backend in ("tensorrt", "tensorrt_rtx", "onnxruntime-cuda"):
        assert f"{backend} is not here" in error["found"]
    assert "doctor" in error["cure"]


def test_ctrl_c_leaves_nothing(call: Call, bundle: Path, site: Path, spoil: Any) -> None:
    def interrupted(content: bytes) -> bytes:
        raise KeyboardInterrupt

    spoil.append(interrupted)
    answer = call("engine", bundle, "--backend", "tensorrt", "--site", site, "--json")
    assert answer.code == 130
    assert answer.documents[0]["error"]["code"] == "command.interrupted"
    assert list(site.iterdir()) == []


def test_engines_that_cannot_be_used_here_say_why(call: Call, bundle: Path, site: Path, gpu: Any) -> None:
    call("engine", bundle, "--backend", "tensorrt", "--site", site)
    gpu.multiprocessors = 8
    (document,) = call("engine", bundle, "--site", site, "--list", "--json").documents
    assert document["engines"][0]["unusable"] == "no: another multiprocessors"
    refused = call("score", bundle, "-", "--backend", "tensorrt", "--site", site, "--json")
    assert refused.code == 1
    assert refused.documents[0]["error"]["code"] == "engine.foreign"


def test_help_has_examples(call: Call) -> None:
    help_text = call("engine", "--help").out
    assert "Examples:" in help_text
    assert "--images films" in help_text
    assert json.dumps(help_text)


def test_verify_holds_the_engines_to_the_tolerance_of_their_gate(
    call: Call, bundle: Path, site: Path
) -> None:
    assert call("engine", bundle, "--backend", "tensorrt", "--site", site).code == 0
    answer = call("verify", bundle, "--backend", "tensorrt", "--site", site, "--json")
    assert answer.code == 0, answer.err
    (document,) = answer.documents
    (head,) = document["golden"]["heads"]
    assert document["backend"].startswith("tensorrt")
    assert document["site_entries"] == 1
    assert head["map_tolerance"] == 0.1  # an fp16 set's
    assert head["score_error"] <= head["score_tolerance"]


def test_a_set_that_was_gated_without_cuda_graphs_is_used_so_by_every_command(
    call: Call, bundle: Path, site: Path, gpu: Any, tmp_path: Path
) -> None:
    """The cure that a refusal names is an option of the command that was refused, and no other needs it."""
    gpu.refuses_capture = True
    build = ("engine", bundle, "--backend", "tensorrt", "--site", site)
    films = Bundle.open(bundle).path / "golden" / "images"
    refused = call(*build, "--json").documents[0]["error"]
    assert refused["code"] == "backend.capture"
    assert "promptray engine BUNDLE --no-cuda-graphs" in refused["cure"]
    assert list(site.iterdir()) == []
    built = call(*build, "--no-cuda-graphs")
    assert built.code == 0, built.err
    assert "without CUDA graphs" in built.out
    (tmp_path / "report.txt").write_text("No pneumonia.", encoding="utf-8")
    on_gpu, film = ("--backend", "tensorrt", "--site", site), sorted(films.iterdir())[0]
    for command in (
        ("score", bundle, films, "--modality", "CR", *on_gpu),
        ("verify", bundle, *on_gpu),
        ("check", bundle, film, "--report", tmp_path / "report.txt", "--modality", "CR", "--site", site),
        ("prompts", bundle, "list", "--site", site),
    ):
        before = gpu.calls["cudaMemcpyAsync"]
        answer = call(*command)
        assert answer.code == 0, answer.err
        assert gpu.calls["cudaMemcpyAsync"] > before, "the GPU did it"
    assert gpu.calls["cudaGraphLaunch"] == 0
    (listed,) = call("engine", bundle, "--site", site, "--list", "--json").documents[0]["engines"]
    assert (listed["cuda_graphs"], listed["unusable"]) == (False, None)
    for more in ((), ("--rebuild",)):  # it stays as it is
        assert call(*build, *more).code == 0


def test_a_set_of_the_site_is_gated_again_without_cuda_graphs_and_without_a_build(
    call: Call, bundle: Path, site: Path, gpu: Any
) -> None:
    build = ("engine", bundle, "--backend", "tensorrt", "--site", site)
    assert call(*build).code == 0
    assert gpu.calls["cudaGraphLaunch"] > 0
    before = gpu.calls["cudaGraphLaunch"]
    (again,) = call(*build, "--no-cuda-graphs", "--json").documents
    assert (again["plans"], again["gated_now"]) == ("of the site", True)
    assert again["engine"]["cuda_graphs"] is False
    assert gpu.calls["cudaGraphLaunch"] == before
    assert len(call("engine", bundle, "--site", site, "--list", "--json").documents[0]["engines"]) == 1


def _as_gated_on_images(bundle: Path, site: Path, **changes: Any) -> EngineSet:
    """Say of the site's one set that it passed the gates on images."""
    opened = Bundle.open(bundle)
    store = EngineStore(Site.open(site, opened.hash), opened.manifest)
    (facts,) = store.sets
    images = ImagesGate(images=700, sha256="a" * 64, report="b" * 64)
    gated = msgspec.structs.replace(facts, gate=msgspec.structs.replace(facts.gate, images=images), **changes)
    store.add(gated, store.opened(facts).all_plans())
    return gated


@pytest.mark.parametrize("option", ["--rebuild", "--no-cuda-graphs"])
def test_a_gate_on_images_is_not_lost_to_one_on_golden_pictures(
    call: Call, bundle: Path, site: Path, option: str
) -> None:
    build = ("engine", bundle, "--backend", "tensorrt", "--site", site)
    call(*build)
    gated = _as_gated_on_images(bundle, site)
    refused = call(*build, option, "--json")
    assert refused.code == 1
    error = refused.documents[0]["error"]
    assert (error["code"], error["expected"]) == ("engine.gate", gated.gate.title)
    assert "--images DIR" in error["cure"]
    (there,) = call("engine", bundle, "--site", site, "--list", "--json").documents[0]["engines"]
    assert there["gate_title"] == gated.gate.title
    assert call(*build).code == 0  # what is there is used
    assert call("engine", bundle, "--site", site, "--remove", gated.key).code == 0
    assert call(*build, option).code == 0


def test_a_faster_set_without_images_does_not_take_the_place_of_one_with(
    call: Call, bundle: Path, site: Path
) -> None:
    build = ("engine", bundle, "--backend", "tensorrt", "--site", site)
    call(*build, "--precision", "fp32")
    gated = _as_gated_on_images(bundle, site, speed=EngineSpeed(milliseconds=1e6))
    answer = call(*build, "--precision", "fp16", "--json")
    assert "others of this site on images" in answer.err
    (other,) = answer.documents
    assert other["engine"]["speed"]["milliseconds"] < 1e6
    assert (other["used_key"], other["key"] != gated.key) == (gated.key, True)
    assert f"passed gates on images: {gated.key}" in call(*build, "--precision", "fp16").out
    with Scorer.open(bundle, backend="tensorrt", site=site) as scorer:
        assert scorer.backend.engines is not None
        assert scorer.backend.engines.key == gated.key
