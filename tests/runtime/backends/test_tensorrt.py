"""Engines through the whole scorer, on a simulated GPU that obeys CUDA's rules: same bits, nothing wasted."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptray.runtime.answers import Answers
from promptray.runtime.backends import GpuOptions
from promptray.runtime.backends.cuda import Cuda
from promptray.runtime.backends.tensorrt_engine import Context, Engine, Library
from promptray.runtime.bundle import Bundle
from promptray.runtime.errors import BundleError, ScoringError
from promptray.runtime.result import Result
from promptray.runtime.scorer import Scorer
from tests.fake_cuda import Gpu
from tests.fake_tensorrt import Severity, TensorRT, simulated_tensorrt
from tests.simulated_engines import plans_of, store_engines

PICTURES = [np.random.default_rng(seed).integers(0, 256, (40, 48), np.uint8) for seed in range(6)]
Simulated = tuple[Gpu, TensorRT]


def score(scorer: Scorer, picture: np.ndarray, **options: Any) -> Result:
    return scorer.score(picture, modality="DX", **options)


def numbers(result: Result) -> list[float]:
    return [each.logit for each in result.scores.values()]


def on_cpu(bundle: Bundle, **options: Any) -> list[Result]:
    with Scorer.open(bundle.path, site=None, threads=1, **options) as scorer:
        return [score(scorer, picture) for picture in PICTURES]


def open_on_gpu(bundle: Bundle, site: Path, **options: Any) -> Scorer:
    return Scorer.open(bundle.path, site=site, backend="tensorrt", threads=1, **options)


def error_of(call: Callable[[], object]) -> ScoringError | None:
    """What a call raised, None where it went well."""
    try:
        call()
    except ScoringError as error:
        return error
    return None


def code_of(call: Callable[[], object]) -> str | None:
    """The code of what a call raised, None where it went well; the error itself holds nothing any more."""
    try:
        call()
    except ScoringError as error:
        return error.code
    return None


@pytest.mark.parametrize("cuda_graphs", [True, False])
@pytest.mark.parametrize("reproducible", [False, True])
def test_scores_and_maps_are_those_of_the_cpu_bit_for_bit(
    miniature: Bundle, site: Path, tensorrt: Simulated, cuda_graphs: bool, reproducible: bool
) -> None:
    gpu, _ = tensorrt
    store_engines(miniature, site, gpu)
    expected = on_cpu(miniature, reproducible=reproducible)
    options = GpuOptions(cuda_graphs=cuda_graphs)
    with open_on_gpu(miniature, site, gpu=options, reproducible=reproducible) as scorer:
        for picture, wanted in zip(PICTURES, expected, strict=True):
            found = score(scorer, picture)
            assert numbers(found) == numbers(wanted)
            for key in wanted.scores:
                assert (found.grid(key) == wanted.grid(key)).all()
    assert bool(gpu.calls["cudaGraphLaunch"]) is cuda_graphs


def test_a_call_allocates_nothing(miniature: Bundle, site: Path, tensorrt: Simulated) -> None:
    gpu, _ = tensorrt
    store_engines(miniature, site, gpu)
    with open_on_gpu(miniature, site) as scorer:
        before, held = gpu.calls.copy(), gpu.held
        for picture in PICTURES:
            score(scorer, picture)
        made = gpu.calls - before
        assert made["allocation"] == 0
        assert gpu.held == held
        # Pixels to the device, the whole work, one wait.
        assert made == {
            "cudaGetDevice": 6, "cudaMemcpyAsync": 6, "cudaGraphLaunch": 6, "cudaStreamSynchronize": 6,
        }  # fmt: skip


def test_the_result_says_which_engines_and_which_gate(
    miniature: Bundle, site: Path, tensorrt: Simulated
) -> None:
    facts = store_engines(miniature, site, tensorrt[0])
    with open_on_gpu(miniature, site) as scorer:
        said = score(scorer, PICTURES[0]).to_json()
    assert said["backend"]["name"] == "tensorrt"
    assert said["backend"]["device"] == "Simulated GPU (compute capability 8.9)"
    assert said["backend"]["engines"] == {"key": facts.key, "gate": "golden"}
    assert said["backend"]["gated_as"] == f"tensorrt@{facts.key}"
    assert said["backend"]["text"] == "onnxruntime-cpu"
    assert said["backend"]["precision"] == "fp32"
    assert {"infer", "total"} <= said["timing_ms"].keys()
    assert not {"image", "head"} & said["timing_ms"].keys()


def test_prompts_come_and_go_while_scoring_goes_on(
    miniature: Bundle, site: Path, tensorrt: Simulated
) -> None:
    gpu, _ = tensorrt
    store_engines(miniature, site, gpu)
    with (
        Scorer.open(miniature.path, site=None, threads=1) as cpu,
        open_on_gpu(miniature, site, gpu=GpuOptions(streams=1)) as scorer,
    ):
        before = gpu.held
        under_way = scorer.submit(scorer.prepare(PICTURES[0], modality="DX"))
        for each in (cpu, scorer):
            each.prompts.add("new", "There is a rib fracture")
        assert "new" not in under_way.result().scores, "it finishes with the prompts it began with"
        assert numbers(score(scorer, PICTURES[1])) == numbers(score(cpu, PICTURES[1]))
        for each in (cpu, scorer):
            each.prompts.remove("new")
        assert numbers(score(scorer, PICTURES[1])) == numbers(score(cpu, PICTURES[1]))
        del under_way
        score(scorer, PICTURES[2])
        assert gpu.held == before, "banks and contexts that nobody uses were given back"


def test_more_prompts_than_the_engine_was_built_for_are_refused_and_change_nothing(
    miniature: Bundle, site: Path, tensorrt: Simulated
) -> None:
    store_engines(miniature, site, tensorrt[0], most={"prompts": 2})
    with open_on_gpu(miniature, site) as scorer:
        expected = numbers(score(scorer, PICTURES[0]))
        errors = [
            error_of(partial(scorer.prompts.add, f"new {number}", "There is pneumonia"))
            for number in range(4)  # the buckets fill one after the other
        ]
        refusal = errors[-1]
        assert refusal
        assert refusal.code == "backend.shape"
        assert "head chest engine, input" in str(refusal.artefact)
        assert "promptray engine" in str(refusal.cure)
        for number in range(4):
            if f"new {number}" in scorer.prompts:
                scorer.prompts.remove(f"new {number}")
        assert numbers(score(scorer, PICTURES[0])) == expected


def test_more_images_than_the_engine_takes_go_in_several_calls(
    miniature: Bundle, site: Path, tensorrt: Simulated
) -> None:
    store_engines(miniature, site, tensorrt[0], most={"images": 2})
    pixels = np.random.default_rng(1).normal(size=(5, 3, 32, 32)).astype(np.float32)
    with open_on_gpu(miniature, site) as scorer, Scorer.open(miniature.path, site=None, threads=1) as cpu:
        found = scorer.submit_pixels(pixels).result().heads[0]
        assert found.logits.shape == (5, 2)
        for first, last in ((0, 2), (2, 4), (4, 5)):
            wanted = cpu.submit_pixels(pixels[first:last]).result().heads[0]
            assert (found.logits[first:last] == wanted.logits).all()
            assert wanted.maps is not None
            assert found.maps is not None
            assert (found.maps[first:last] == wanted.maps).all()


@pytest.mark.parametrize(
    ("pixels", "code"),
    [
        (np.zeros((1, 3, 32, 32)), "score.input"),
        (np.zeros((1, 3, 32, 31), np.float32), "score.input"),
        (np.zeros((3, 32, 32), np.float32), "score.input"),
        (np.zeros((0, 3, 32, 32), np.float32), "score.input"),
        (np.full((1, 3, 32, 32), np.nan, np.float32), "score.not-finite"),
        (np.full((1, 3, 32, 32), np.inf, np.float32), "score.not-finite"),
    ],
)
def test_pixels_that_cannot_be_scored_are_refused(
    miniature: Bundle, site: Path, tensorrt: Simulated, pixels: np.ndarray, code: str
) -> None:
    store_engines(miniature, site, tensorrt[0])
    with open_on_gpu(miniature, site) as scorer:
        with pytest.raises(ScoringError) as refusal:
            scorer.submit_pixels(pixels)
        assert refusal.value.code == code
        assert score(scorer, PICTURES[0]).scores, "the scorer is still usable"


@pytest.mark.parametrize("output", ["logits", "maps", "features"])
def test_a_number_that_is_none_is_no_score(
    miniature: Bundle, site: Path, tensorrt: Simulated, output: str
) -> None:
    """What an engine makes of numbers beyond its range is NaN, also where a head takes it for 0."""
    gpu, library = tensorrt
    store_engines(miniature, site, gpu)
    graph = miniature.manifest.graph("image")
    assert graph
    names = {"features": graph.outputs[0].name}
    with open_on_gpu(miniature, site) as scorer:
        library.nan_in, library.hides_nan = {names.get(output, output)}, True
        before = gpu.calls["allocation"]
        for _ in range(3):
            error = error_of(lambda: score(scorer, PICTURES[0]))
            assert error
            assert error.code == "score.not-finite"
            assert error.cure
        assert gpu.calls["allocation"] == before, "the programs are as good as before"
        library.nan_in = set()
        assert score(scorer, PICTURES[0]).scores, "the scorer is still usable"


def test_it_uses_its_device_whichever_the_caller_uses(
    miniature: Bundle, site: Path, tensorrt: Simulated
) -> None:
    gpu, _ = tensorrt
    store_engines(miniature, site, gpu)
    gpu.cudaSetDevice(1)
    with open_on_gpu(miniature, site) as scorer:
        assert numbers(score(scorer, PICTURES[0])) == numbers(on_cpu(miniature)[0])
        scorer.prompts.add("new", "There is a rib fracture")
        pixels = np.zeros((2, 3, 32, 32), np.float32)
        assert scorer.submit_pixels(pixels).result()
        assert gpu.current == 1, "what the caller had set"
        assert code_of(lambda: scorer.submit_pixels(pixels[:0])) == "score.input"
        assert gpu.current == 1
    assert gpu.current == 1


@pytest.mark.parametrize("shares", [False, True])
def test_contexts_of_8_6_share_a_profile_where_the_engine_was_built_for_it(
    miniature: Bundle, tensorrt: Simulated, shares: bool
) -> None:
    gpu, library = tensorrt
    library.version = "8.6.2"
    plans = plans_of(miniature, gpu, version=library.version, shares_profiles=shares)
    graph = miniature.manifest.graph("image")
    assert graph
    cuda = Cuda()
    engine, stream = Engine(Library("tensorrt", cuda), plans["image"], graph), cuda.stream()
    first = Context(engine, {"pixels": (1, 3, 32, 32)}, stream)
    error = error_of(lambda: Context(engine, {"pixels": (2, 3, 32, 32)}, stream))
    assert ("in use by another execution context" in str(error)) is not shares
    assert first.shapes
    cuda.close()


def test_kernels_are_compiled_before_the_first_score(miniature: Bundle, site: Path) -> None:
    """TensorRT-RTX would replace them at some later call, by ones that give other bits."""
    with simulated_tensorrt(flavour="tensorrt_rtx") as (gpu, _):
        store_engines(miniature, site, gpu, backend="tensorrt_rtx")
        expected = numbers(on_cpu(miniature)[0])
        with Scorer.open(miniature.path, site=site, backend="tensorrt_rtx", threads=1) as scorer:
            assert [numbers(score(scorer, PICTURES[0])) for _ in range(10)] == [expected] * 10
        gpu.assert_clean()


@pytest.mark.parametrize("streams", [1, 3])
def test_calls_take_turns_on_all_programs(
    miniature: Bundle, site: Path, tensorrt: Simulated, monkeypatch: pytest.MonkeyPatch, streams: int
) -> None:
    """So a gate, which scores one picture after the other, sees what any of them computes."""
    gpu, _ = tensorrt
    store_engines(miniature, site, gpu)
    with open_on_gpu(miniature, site, gpu=GpuOptions(streams=streams)) as scorer:
        graphs: list[int] = []
        launch = Cuda.launch

        def note(self: Cuda, recorded: Any, stream: Any) -> None:
            graphs.append(stream.handle)
            launch(self, recorded, stream)

        monkeypatch.setattr(Cuda, "launch", note)
        for picture in PICTURES:
            score(scorer, picture)
    assert len(set(graphs[:streams])) == streams


def test_an_interrupt_while_work_is_recorded_leaves_the_stream_usable(
    tensorrt: Simulated,
) -> None:
    gpu, _ = tensorrt
    cuda = Cuda()
    stream = cuda.stream()

    def interrupted() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cuda.record(stream, interrupted)
    assert not gpu.capturing(stream.handle)
    assert cuda.record(stream, lambda: None)
    cuda.close()


def test_work_that_cannot_be_recorded_is_an_error_unless_it_was_asked_for(
    miniature: Bundle, site: Path, tensorrt: Simulated
) -> None:
    gpu, _ = tensorrt
    store_engines(miniature, site, gpu)
    gpu.refuses_capture = True
    with pytest.raises(ScoringError) as refusal:
        open_on_gpu(miniature, site)
    assert refusal.value.code == "backend.capture"
    assert "cuda_graphs=False" in str(refusal.value.cure)
    with open_on_gpu(miniature, site, gpu=GpuOptions(cuda_graphs=False)) as scorer:
        assert numbers(score(scorer, PICTURES[0])) == numbers(on_cpu(miniature)[0])


def test_an_engine_of_another_graph_is_refused(miniature: Bundle, site: Path, tensorrt: Simulated) -> None:
    from promptray.runtime.engines.store import EngineStore
    from promptray.runtime.site import Site
    from tests.engine_factory import engine_set
    from tests.simulated_engines import device_of, plans_of

    gpu, _ = tensorrt
    plans = plans_of(miniature, gpu)
    plans["image"], plans["head.chest"] = plans["head.chest"], plans["image"]
    facts = engine_set(miniature.manifest, plans, device=device_of(gpu))
    EngineStore(Site.open(site, miniature.hash), miniature.manifest).add(facts, plans)
    with pytest.raises(ScoringError) as refusal:
        open_on_gpu(miniature, site)
    assert refusal.value.code == "backend.failed"
    assert "other inputs than the manifest says" in refusal.value.message


def test_engines_that_give_other_scores_than_gated_are_named(
    miniature: Bundle, site: Path, tensorrt: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = store_engines(miniature, site, tensorrt[0])
    monkeypatch.setattr(Answers, "errors", lambda *_: (9.0, 0.0))
    with pytest.raises(BundleError) as refusal:
        open_on_gpu(miniature, site)
    assert refusal.value.code == "bundle.golden"
    assert facts.key in str(refusal.value.artefact)
    assert "promptray engine BUNDLE --backend tensorrt --rebuild" in str(refusal.value.cure)


def test_a_result_that_is_there_keeps_no_bank(miniature: Bundle, site: Path, tensorrt: Simulated) -> None:
    gpu, _ = tensorrt
    store_engines(miniature, site, gpu)
    with open_on_gpu(miniature, site, gpu=GpuOptions(streams=1)) as scorer:
        before = gpu.held
        kept = scorer.submit(scorer.prepare(PICTURES[0], modality="DX"))
        result = kept.result()
        scorer.prompts.add("new", "There is a rib fracture")
        scorer.prompts.remove("new")
        score(scorer, PICTURES[0])
        assert gpu.held == before
        assert kept.done()
        assert kept.result() is result


def test_each_thread_hears_what_was_said_of_its_latest_call(tensorrt: Simulated) -> None:
    cuda = Cuda()
    library = Library("tensorrt", cuda)
    log = library.runtime.logger
    log.log(Severity.ERROR, "of an earlier call")
    library.listen()
    other = threading.Thread(target=log.log, args=(Severity.ERROR, "of another thread"))
    other.start()
    other.join()
    log.log(Severity.WARNING, "a warning")
    log.log(Severity.ERROR, "of this call\nand more")
    assert library.failed("it").message.endswith("it: of this call")
    cuda.close()


def test_tensorrts_own_words_are_in_the_error(miniature: Bundle, site: Path, tensorrt: Simulated) -> None:
    _, library = tensorrt
    store_engines(miniature, site, tensorrt[0])
    with open_on_gpu(miniature, site, gpu=GpuOptions(cuda_graphs=False)) as scorer:
        library.fails_next = True
        with pytest.raises(ScoringError) as refusal:
            score(scorer, PICTURES[0])
        assert refusal.value.code == "backend.failed"
        assert "myelin failed" in refusal.value.message
        assert "tensorrt 10.3.0: image engine" in refusal.value.message
        assert numbers(score(scorer, PICTURES[0])) == numbers(on_cpu(miniature)[0])
