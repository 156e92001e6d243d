"""ONNX Runtime's CUDA provider: refused where it is not, its IO binding run on the processor's provider."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as ort_state

from promptray.runtime.backends import GpuOptions
from promptray.runtime.backends import onnxruntime_cuda as module
from promptray.runtime.backends import onnxruntime_cuda_chain as chain_module
from promptray.runtime.backends.onnxruntime_cuda import OnnxRuntimeCuda
from promptray.runtime.bundle import Bundle
from promptray.runtime.errors import ScoringError
from promptray.runtime.scorer import Scorer
from tests.engine_factory import engine_set
from tests.fake_cuda import Gpu
from tests.runtime.backends.test_tensorrt import PICTURES, code_of, error_of, numbers, on_cpu, score


class Unopened:
    """Facts of a set that passed its gate."""

    def __init__(self, bundle: Bundle) -> None:
        self.facts = engine_set(bundle.manifest, {}, backend="onnxruntime-cuda")

    def plan(self, role: str, head: str | None = None) -> bytes:
        raise AssertionError("this library keeps no plans")


def test_the_same_binding_scores_as_the_cpu_backend_does(miniature: Bundle, site: Path, gated: Gpu) -> None:
    expected = on_cpu(miniature)
    with (
        Scorer.open(miniature.path, site=site, backend="onnxruntime-cuda") as scorer,
        Scorer.open(miniature.path, site=None, threads=1) as cpu,
    ):
        found = [score(scorer, picture) for picture in PICTURES]
        assert [numbers(each) for each in found] == [numbers(each) for each in expected]
        for one, other in zip(found, expected, strict=True):
            assert all((one.grid(key) == other.grid(key)).all() for key in one.scores)
        for each in (scorer, cpu):
            each.prompts.add("new", "There is a rib fracture")
        assert numbers(score(scorer, PICTURES[0])) == numbers(score(cpu, PICTURES[0]))
        pixels = np.random.default_rng(3).normal(size=(2, 3, 32, 32)).astype(np.float32)
        together = scorer.submit_pixels(pixels).result().heads[0].logits
        assert (together == cpu.submit_pixels(pixels).result().heads[0].logits).all()
        assert found[0].to_json()["backend"]["gated_as"].startswith("onnxruntime-cuda@onnxruntime-cuda-")


def test_more_images_than_the_settings_say_go_in_several_calls(
    miniature: Bundle, site: Path, gated: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    pixels = np.random.default_rng(3).normal(size=(18, 3, 32, 32)).astype(np.float32)
    run, sizes = chain_module._Program.run, []

    def note(self: Any, pixels: Any) -> Any:
        sizes.append(pixels.shape[0])
        return run(self, pixels)

    with (
        Scorer.open(miniature.path, site=site, backend="onnxruntime-cuda") as scorer,
        Scorer.open(miniature.path, site=None, threads=1) as cpu,
    ):
        monkeypatch.setattr(chain_module._Program, "run", note)
        found = scorer.submit_pixels(pixels).result().heads[0].logits
        assert sizes == [8, 8, 8, 2, 2], "a size that is new is run once before"
        for first in (0, 8, 16):
            part = slice(first, first + 8)
            assert (found[part] == cpu.submit_pixels(pixels[part]).result().heads[0].logits).all()


def test_features_that_are_no_numbers_are_no_score(
    miniature: Bundle, site: Path, gated: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a head would make a number of them."""
    run = chain_module._Call.run

    def spoil(self: Any) -> None:
        run(self)
        if "logits" not in self.outputs:
            for value in self.outputs.values():
                value.update_inplace(np.full(value.shape(), np.nan, np.float32))
        else:
            for value in self.outputs.values():
                value.update_inplace(np.zeros(value.shape(), np.float32))

    with Scorer.open(miniature.path, site=site, backend="onnxruntime-cuda") as scorer:
        monkeypatch.setattr(chain_module._Call, "run", spoil)
        assert code_of(lambda: score(scorer, PICTURES[0])) == "score.not-finite"


@pytest.mark.parametrize("output", ["logits", "maps"])
@pytest.mark.parametrize("images", [1, 18])
def test_answers_that_are_no_numbers_are_no_score(
    miniature: Bundle, site: Path, gated: Gpu, monkeypatch: pytest.MonkeyPatch, output: str, images: int
) -> None:
    run = chain_module._Call.run

    def spoil(self: Any) -> None:
        run(self)
        if output in self.outputs:
            values = self.outputs[output].numpy().copy()
            values.reshape(-1)[-1] = np.inf
            self.outputs[output].update_inplace(values)

    with Scorer.open(miniature.path, site=site, backend="onnxruntime-cuda") as scorer:
        monkeypatch.setattr(chain_module._Call, "run", spoil)
        error = error_of(lambda: scorer.submit_pixels(np.ones((images, 3, 32, 32), np.float32)).result())
        assert error
        assert (error.code, error.artefact) == ("score.not-finite", f"head graph, output {output}")


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_the_provider_is_asked_for_true_float32_and_the_same_bits(
    miniature: Bundle, gated: Gpu, monkeypatch: pytest.MonkeyPatch, cuda_graphs: bool
) -> None:
    asked: dict[str, Any] = {}

    def session(model: bytes, options: Any, *, providers: Any, enable_fallback: int) -> Any:
        asked.update(options=options, providers=providers, fallback=enable_fallback)
        raise RuntimeError("asked")

    backend = OnnxRuntimeCuda(Unopened(miniature), GpuOptions(cuda_graphs=cuda_graphs))
    graph = miniature.manifest.graph("image")
    assert graph
    monkeypatch.setattr(ort, "InferenceSession", session)
    assert code_of(lambda: backend.load(lambda: miniature.read(graph.file), graph)) == "backend.failed"
    assert asked["providers"] == [
        (
            "CUDAExecutionProvider",
            {
                "device_id": "0",
                "use_tf32": "0",
                "enable_cuda_graph": "1",  # ONNX Runtime then refuses what the processor would have to do
                "cudnn_conv_algo_search": "DEFAULT",
            },
        )
    ]
    assert asked["options"].use_deterministic_compute
    assert asked["fallback"] == 0
    backend.close()


REFUSALS = [
    "This session cannot use the CUDA Graph feature as requested by the user as all compute graph nodes",
    "This session cannot use the graph capture feature as requested by the user  as all compute graph nodes",
]


@pytest.mark.parametrize("cuda_graphs", [True, False])
@pytest.mark.parametrize("words", REFUSALS)
def test_a_graph_that_the_processor_would_run_in_part_is_refused(
    miniature: Bundle, gated: Gpu, monkeypatch: pytest.MonkeyPatch, cuda_graphs: bool, words: str
) -> None:
    def session(*given: Any, **options: Any) -> Any:
        raise RuntimeError(f"[ONNXRuntimeError] : 1 : FAIL : {words} have not been partitioned")

    backend = OnnxRuntimeCuda(Unopened(miniature), GpuOptions(cuda_graphs=cuda_graphs))
    graph = miniature.manifest.graph("head", "chest")
    assert graph
    monkeypatch.setattr(ort, "InferenceSession", session)
    error = error_of(lambda: backend.load(lambda: miniature.read(graph.file), graph))
    assert error
    assert (error.code, error.artefact) == ("backend.unavailable", graph.file)
    assert "the whole graph" in error.message
    assert "onnxruntime-cpu" in str(error.cure)
    backend.close()


def test_its_refusal_has_the_words_that_the_installed_library_has() -> None:
    library = Path(ort_state.__file__).read_bytes()
    assert any(b"session cannot use the " + words in library for words in (b"CUDA Graph", b"graph capture"))
    assert b"compute graph nodes have not been partitioned" in library
    assert b"gpu_graph_id" in library


def test_an_output_that_the_processor_makes_is_refused(
    miniature: Bundle, gated: Gpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part of a graph that has nothing on the GPU needs no copy, and copies are all that is looked for."""
    places = ["Cuda", "Cpu"]

    def session(*given: Any, **options: Any) -> Any:
        outputs = [SimpleNamespace(name=name) for name in ("logits", "maps")]
        return SimpleNamespace(
            get_providers=lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"],
            get_outputs=lambda: outputs,
            get_output_memory_infos=lambda: [SimpleNamespace(name=place) for place in places],
        )

    backend = OnnxRuntimeCuda(Unopened(miniature), GpuOptions())
    graph = miniature.manifest.graph("head", "chest")
    assert graph
    monkeypatch.setattr(module, "make_session", session)
    error = error_of(lambda: backend.load(bytes, graph))
    assert error
    assert error.code == "backend.unavailable"
    assert str(error.found).endswith("makes: maps")
    places[1] = "Cuda"
    assert backend.load(bytes, graph)
    backend.close()


@pytest.mark.skipif(
    not hasattr(ort.InferenceSession, "get_output_memory_infos"), reason="ONNX Runtime before 1.23"
)
def test_the_processors_memory_is_called_as_the_check_calls_it(miniature: Bundle) -> None:
    graph = miniature.manifest.graph("image")
    assert graph
    session = ort.InferenceSession(miniature.read(graph.file), providers=["CPUExecutionProvider"])
    assert {place.name for place in session.get_output_memory_infos()} == {module._HOST_MEMORY}


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_what_is_recorded_has_a_number_for_each_shape_and_place(
    miniature: Bundle, site: Path, gated: Gpu, monkeypatch: pytest.MonkeyPatch, cuda_graphs: bool
) -> None:
    """ONNX Runtime replays what it recorded under a number, also for another shape, and looks at nothing."""
    run = ort.InferenceSession.run_with_iobinding
    recorded: dict[str, set[tuple[Any, ...]]] = {}
    kept: list[Any] = []  # or an address would be used twice

    def note(self: Any, binding: Any, options: Any) -> None:
        outputs = [(tuple(value.shape()), value.data_ptr()) for value in binding.get_outputs()]
        kept.extend((self, binding))
        number = options.get_run_config_entry("gpu_graph_id")
        recorded.setdefault(number, set()).add((id(self), *outputs))
        run(self, binding, options)

    monkeypatch.setattr(ort.InferenceSession, "run_with_iobinding", note)
    options = GpuOptions(cuda_graphs=cuda_graphs)
    with Scorer.open(miniature.path, site=site, backend="onnxruntime-cuda", gpu=options) as scorer:
        pixels = np.zeros((15, 3, 32, 32), np.float32)
        for images in (1, 2, 4, 7, 15, 1):
            scorer.submit_pixels(pixels[:images]).result()
        scorer.prompts.add("new", "There is a rib fracture")
        scorer.submit_pixels(pixels[:1]).result()
    if not cuda_graphs:
        assert recorded.keys() == {"-1"}, "which tells it to record nothing"
        return
    assert len(recorded) >= 2 * len((1, 2, 4, 8)), "the image graph and the head, in each size"
    assert all(int(number) > 0 for number in recorded), "0 is its own"
    assert all(len(each) == 1 for each in recorded.values())
    assert len(set.union(*recorded.values())) == len(recorded)


@pytest.fixture
def no_collection() -> Iterator[None]:
    """References must do: a garbage collection may come in an hour, or never."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("closed", [True, False])
def test_sessions_and_their_values_go_with_the_scorer(
    miniature: Bundle, site: Path, gated: Gpu, no_collection: None, closed: bool
) -> None:
    """And their memory with them: a session's weights, its arena, what it recorded."""

    def there() -> dict[int, object]:
        kinds = (ort.InferenceSession, ort.OrtValue)
        return {id(each): each for each in gc.get_objects() if type(each) in kinds}

    before = there()

    def alive() -> int:
        return len(there().keys() - before.keys())

    scorer = Scorer.open(miniature.path, site=site, backend="onnxruntime-cuda")
    scorer.submit_pixels(np.zeros((3, 3, 32, 32), np.float32)).result()
    at_first = alive()
    assert at_first > 8
    scorer.prompts.remove(next(iter(scorer.prompts)).key)
    scorer.submit_pixels(np.zeros((1, 3, 32, 32), np.float32)).result()
    scorer.submit_pixels(np.zeros((1, 3, 32, 32), np.float32)).result()
    assert alive() < at_first, "the bank before, and the calls it was bound to"
    if closed:
        scorer.close()
    else:
        del scorer
    assert alive() == 0


def test_it_refuses_what_it_cannot_score(miniature: Bundle, site: Path, gated: Gpu) -> None:
    with Scorer.open(miniature.path, site=site, backend="onnxruntime-cuda") as scorer:
        wrong: list[tuple[Any, str]] = [
            (np.zeros((1, 3, 32, 32)), "score.input"),
            (np.zeros((1, 3, 16, 32), np.float32), "score.input"),
            (np.zeros((3, 32, 32), np.float32), "score.input"),
            (np.zeros((0, 3, 32, 32), np.float32), "score.input"),
            (np.full((1, 3, 32, 32), np.nan, np.float32), "score.not-finite"),
            ([[1.0]], "score.input"),
        ]
        for pixels, code in wrong:
            assert code_of(lambda: scorer.submit_pixels(pixels)) == code  # noqa: B023
        prepared = scorer.prepare(PICTURES[0], modality="DX")
    assert code_of(lambda: scorer.infer(prepared)) == "score.closed"


@pytest.mark.parametrize(
    ("words", "code"),
    [
        ("CUDA failure 2: out of memory ; GPU=0", "backend.out-of-memory"),
        ("Failed to allocate memory for requested buffer of size 1", "backend.out-of-memory"),
        ("CUDA failure 700: an illegal memory access was encountered", "backend.device-lost"),
        ("something else", "backend.failed"),
    ],
)
def test_its_faults_are_told_apart(
    miniature: Bundle, site: Path, gated: Gpu, monkeypatch: pytest.MonkeyPatch, words: str, code: str
) -> None:
    with Scorer.open(miniature.path, site=site, backend="onnxruntime-cuda") as scorer:
        expected = numbers(score(scorer, PICTURES[0]))

        def fail(self: Any) -> None:
            raise RuntimeError(words)

        with monkeypatch.context() as patch:
            patch.setattr(chain_module._Call, "run", fail)
            error = error_of(lambda: score(scorer, PICTURES[0]))
        assert error
        assert error.code == code
        after: list[float] = []
        left = code_of(lambda: after.extend(numbers(score(scorer, PICTURES[0]))))
        assert left == ("score.closed" if code == "backend.device-lost" else None)
        assert after == ([] if left else expected)


def test_a_wheel_without_cuda_is_refused(miniature: Bundle) -> None:
    """Here for real: only the wheel for processors is installed."""
    assert "CUDAExecutionProvider" not in ort.get_available_providers()
    with pytest.raises(ScoringError) as refusal:
        Scorer.open(miniature.path, site=None, backend="onnxruntime-cuda")
    assert refusal.value.code == "backend.unavailable"
    assert "not built for CUDA" in str(refusal.value.found)
    assert "onnxruntime-gpu" in str(refusal.value.cure)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_silent_fall_back_to_the_processor_is_refused(miniature: Bundle, gated: Gpu) -> None:
    """ONNX Runtime makes the session anyway, without the provider that it was asked for."""

    backend = OnnxRuntimeCuda(Unopened(miniature), GpuOptions())
    graph = miniature.manifest.graph("image")
    assert graph
    with pytest.raises(ScoringError) as refusal:
        backend.load(lambda: miniature.read(graph.file), graph)
    assert refusal.value.code == "backend.unavailable"
    backend.close()
