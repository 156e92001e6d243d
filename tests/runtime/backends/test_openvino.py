"""OpenVINO beside ONNX Runtime: the scores of every family, residency, threads, faults, and no telemetry."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptray.runtime.backends import HOST, OPENVINO, load_backend
from promptray.runtime.backends import openvino as module
from promptray.runtime.backends.openvino_library import load_library
from promptray.runtime.bundle import Bundle
from promptray.runtime.cores import host_threads
from promptray.runtime.errors import PromptRayError, ScoringError
from promptray.runtime.graphs import Graphs, own_bank
from promptray.runtime.result import Result
from promptray.runtime.scorer import Scorer
from tests import (
    asg_tiny,
    carzero_tiny,
    chexzero_tiny,
    convnext_tiny,
    kad_tiny,
    open_clip_tiny,
    open_clip_tuned_tiny,
    squeezenet_tiny,
)
from tests.carzero_tiny import build_once
from tests.openvino_bundle import for_openvino
from tests.runtime.backends.test_tensorrt import PICTURES, error_of, numbers, score

Opened = Callable[..., Scorer]


@pytest.fixture
def bundle(miniature: Bundle, tmp_path: Path) -> Bundle:
    """The miniature bundle, its graphs also for OpenVINO."""
    return for_openvino(miniature.path, tmp_path / "openvino.bundle")


def opened(bundle: Bundle, **options: Any) -> Scorer:
    return Scorer.open(bundle.path, **{"site": None, "threads": 1, "backend": OPENVINO, **options})


FAMILIES: dict[str, Callable[[Path], Path]] = {
    "carzero": lambda folder: carzero_tiny.shared_bundle(folder, "carzero"),
    "open_clip": lambda folder: open_clip_tiny.shared_bundle(folder, "open-clip"),
    "asg": lambda folder: asg_tiny.shared_bundle(folder, "asg-both", **asg_tiny.both_recipe()),
    "convnext": lambda folder: build_once(folder, "convnext-torchvision", convnext_tiny.write_recipe),
    "squeezenet": lambda folder: build_once(folder, "squeezenet", squeezenet_tiny.write_recipe),
    "kad": lambda folder: kad_tiny.shared_bundle(folder, "kad"),
    "chexzero": lambda folder: chexzero_tiny.shared_bundle(folder, "chexzero"),
    "open_clip, tuned": lambda folder: build_once(
        folder, "open-clip-tuned", open_clip_tuned_tiny.write_recipe
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_and_maps_of_every_family_are_those_of_onnxruntime(
    family: str, shared_dir: Path, tmp_path: Path
) -> None:
    """Within the tolerance that every head states; the golden answers are the original's own."""
    own = for_openvino(FAMILIES[family](shared_dir), tmp_path / "openvino.bundle")
    tolerances = {head.name: head.score_tolerance for head in own.manifest.heads}
    maps = {head.name: head.map and head.map.tolerance for head in own.manifest.heads}
    modality = own.manifest.door.modalities[0]
    with opened(own) as scorer, Scorer.open(own.path, site=None, threads=1, backend=HOST) as cpu:
        report = scorer.check_golden()
        assert [each.head for each in report.heads] == list(tolerances)
        heads = {name: each.finding.head for name, each in scorer.prompts.state.by_name.items()}
        for picture in PICTURES[:2]:
            large = np.kron(picture, np.ones((4, 4), np.uint8))
            found, wanted = (each.score(large, modality=modality) for each in (scorer, cpu))
            assert list(found.scores) == list(wanted.scores)
            for name, one in wanted.scores.items():
                head = heads[name]
                assert abs(found.scores[name].logit - one.logit) <= 2 * tolerances[head]
                if tolerance := maps[head]:
                    assert np.abs(found.grid(name) - wanted.grid(name)).max() <= 2 * tolerance
        assert (scorer.backend.name, scorer.backend.gated_as) == (OPENVINO, None)


def test_the_result_says_what_scored_and_what_encodes_text(bundle: Bundle) -> None:
    with opened(bundle, threads=2) as scorer:
        said = score(scorer, PICTURES[0]).to_json()["backend"]
    assert said["name"] == OPENVINO
    assert said["version"] == module.version_here()
    assert (said["threads"], said["precision"], said["text"]) == (min(2, host_threads(None)), "fp32", HOST)
    assert said["reason"] == "asked for by the caller"


@pytest.mark.parametrize("asked", [1, 2, 8])
def test_the_threads_that_it_says_are_those_that_it_takes(bundle: Bundle, asked: int) -> None:
    backend, facts = load_backend(OPENVINO, threads=asked), bundle.manifest.graph("image")
    assert facts
    graph: Any = backend.load(lambda: bundle.read(facts.file), facts)
    assert graph._compiled.get_property("INFERENCE_NUM_THREADS") == backend.threads
    assert backend.threads == min(asked, host_threads(None))


def test_auto_does_not_take_it(bundle: Bundle) -> None:
    with opened(bundle, backend="auto") as scorer:
        assert scorer.backend.name == HOST


def test_a_bundle_that_was_not_gated_on_it_is_refused(miniature: Bundle) -> None:
    error = error_of(lambda: opened(miniature))
    assert error
    assert (error.code, error.artefact) == ("backend.unavailable", OPENVINO)
    assert "onnxruntime-cpu" in str(error.found)
    assert "backends: [onnxruntime-cpu, openvino]" in str(error.cure)


def test_the_same_call_has_the_same_bits_in_every_scorer(bundle: Bundle) -> None:
    first, again = [], []
    for found in (first, again):
        with opened(bundle) as scorer:
            found += [score(scorer, picture) for picture in PICTURES]
    assert [numbers(each) for each in first] == [numbers(each) for each in again]
    for one, other in zip(first, again, strict=True):
        assert all((one.grid(key) == other.grid(key)).all() for key in one.scores)


def test_reproducible_scores_are_bit_equal_alone_in_many_and_after_adding(bundle: Bundle) -> None:
    with opened(bundle, reproducible=True) as scorer:
        alone = numbers(score(scorer, PICTURES[0]))
        many = list(scorer.score_many(PICTURES[::-1], modality="DX"))
        assert isinstance(many[-1], Result)
        assert numbers(many[-1]) == alone
        for n in range(20):
            scorer.prompts.add(f"new {n}", "There is a rib fracture")
        assert numbers(score(scorer, PICTURES[0]))[: len(alone)] == alone


def test_threads_score_side_by_side(bundle: Bundle) -> None:
    with opened(bundle) as scorer:
        expected = [numbers(score(scorer, picture)) for picture in PICTURES]
        with ThreadPoolExecutor(4) as pool:
            for _ in range(5):
                found = pool.map(lambda picture: numbers(score(scorer, picture)), PICTURES)
                assert list(found) == expected


def test_prompts_come_and_go_while_scoring_goes_on(bundle: Bundle) -> None:
    with opened(bundle) as scorer:
        expected, done = numbers(score(scorer, PICTURES[0])), threading.Event()

        def change() -> None:
            for n in range(10):
                scorer.prompts.add(f"new {n}", "There is a rib fracture")
                scorer.prompts.remove(f"new {n}")
            done.set()

        with ThreadPoolExecutor(1) as pool:
            changed = pool.submit(change)
            while not done.is_set():
                found = numbers(score(scorer, PICTURES[0]))
                assert found[: len(expected)] == pytest.approx(expected, abs=1e-4)
            changed.result()


def test_the_bank_is_wrapped_once_and_never_copied(bundle: Bundle) -> None:
    """What is bound is the caller's memory, in every request: a change of it is seen by the next call."""
    (head,) = bundle.manifest.heads
    graphs = Graphs(bundle, load_backend(OPENVINO, threads=1), prompts_per_batch=None)
    (batch, *_) = own_bank(bundle, head).batches()
    bound = graphs._heads[head.name].bind(batch.tensors)
    features = graphs.features(np.zeros((1, 3, 32, 32), np.float32))
    first = bound.run(features)["logits"]
    name = next(each for each in batch.tensors if each.startswith("values"))
    batch.tensors[name][...] += 1
    assert (bound.run(features)["logits"] != first).all()


def test_answers_are_the_callers_own(bundle: Bundle) -> None:
    """The next call writes to the same memory of OpenVINO's."""
    graphs = Graphs(bundle, load_backend(OPENVINO, threads=1), prompts_per_batch=None)
    random = np.random.default_rng(0)
    one, other = random.normal(size=(2, 1, 3, 32, 32)).astype(np.float32)
    first = graphs.features(one)
    before = {name: values.copy() for name, values in first.items()}
    graphs.features(other)
    assert all((first[name] == before[name]).all() for name in before)


def test_an_input_that_is_missing_is_not_that_of_the_call_before(bundle: Bundle) -> None:
    backend, facts = load_backend(OPENVINO, threads=1), bundle.manifest.graph("image")
    assert facts
    graph = backend.load(lambda: bundle.read(facts.file), facts).bind({})
    pixels = {"pixels": np.ones((1, 3, 32, 32), np.float32)}
    before = graph.run(pixels)
    error = error_of(lambda: graph.run({}))
    assert error
    assert error.code == "backend.failed"
    assert "pixels" in str(error)
    assert all((graph.run(pixels)[name] == before[name]).all() for name in before)


@pytest.mark.parametrize("hidden", [np.nan, np.inf])
def test_a_number_that_is_none_is_no_score(bundle: Bundle, hidden: float) -> None:
    pixels = np.zeros((1, 3, 32, 32), np.float32)
    pixels[0, 0, 3, 3] = hidden
    with opened(bundle) as scorer:
        error = error_of(lambda: scorer.submit_pixels(pixels).result())
    assert error
    assert error.code == "score.not-finite"


def test_deadlines_and_cancellations_hold(bundle: Bundle) -> None:
    cancel = threading.Event()
    cancel.set()
    with opened(bundle) as scorer:
        late = error_of(lambda: score(scorer, PICTURES[0], deadline=1e-9))
        cancelled = error_of(lambda: score(scorer, PICTURES[0], cancel=cancel))
    assert late
    assert cancelled
    assert (late.code, cancelled.code) == ("score.deadline", "score.cancelled")


def test_a_graph_that_is_none_is_named(bundle: Bundle) -> None:
    backend, facts = load_backend(OPENVINO, threads=1), bundle.manifest.graph("image")
    assert facts
    with pytest.raises(PromptRayError) as refusal:
        backend.load(lambda: b"\x08\x08\x3a\x02\x0a\x00", facts)
    assert refusal.value.code == "backend.failed"
    assert refusal.value.artefact == facts.file


def test_less_than_float32_is_refused(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FLOAT32", "bf16")
    backend, facts = load_backend(OPENVINO, threads=1), bundle.manifest.graph("image")
    assert facts
    backend._properties["INFERENCE_PRECISION_HINT"] = "f32"  # type: ignore[attr-defined]
    with pytest.raises(ScoringError) as refusal:
        backend.load(lambda: bundle.read(facts.file), facts)
    assert refusal.value.found == "f32"


def test_without_the_library_it_says_what_to_install(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    error = error_of(lambda: opened(bundle))
    assert error
    assert (error.code, error.artefact) == ("backend.unavailable", OPENVINO)
    assert "promptray[openvino]" in str(error.cure)


def test_it_is_imported_without_its_telemetry(tmp_path: Path) -> None:
    """Else every import sends an event, and leaves an identifier in the user's home."""
    program = (
        "import sys\n"
        "from promptray.runtime.backends.openvino_library import load_library\n"
        "load_library().Core()\n"
        "used = sys.modules['openvino.tools.ovc.telemetry_utils'].tm.__name__\n"
        "print(used, [name for name in sys.modules if name.startswith('openvino_telemetry')])\n"
    )
    home = {**os.environ, "HOME": str(tmp_path), "USERPROFILE": str(tmp_path)}
    found = subprocess.run(
        [sys.executable, "-c", program], env=home, capture_output=True, text=True, check=True, timeout=120
    )
    assert found.stdout == "openvino.tools.ovc.telemetry_stub []\n"
    assert list(tmp_path.iterdir()) == []


def test_a_program_that_imported_the_telemetry_itself_keeps_it(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = object()
    monkeypatch.setitem(sys.modules, "openvino_telemetry", theirs)  # type: ignore[arg-type]
    load_library()
    assert sys.modules["openvino_telemetry"] is theirs
