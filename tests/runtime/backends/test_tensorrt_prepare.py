"""Images prepared on a simulated GPU: levels within one of the CPU's, scores within the gate."""

from __future__ import annotations

import csv
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from promptray.runtime.backends import GpuOptions
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.validate_engines import PREPARE
from promptray.runtime.dicom.photometric import Photometric
from promptray.runtime.errors import PromptRayError
from promptray.runtime.gated_answers import widest
from promptray.runtime.golden import read_golden
from promptray.runtime.prepare_graph import StoredImage
from promptray.runtime.result import Refused, Result
from promptray.runtime.scorer import Scorer
from tests.dicom_factory import dataset
from tests.fake_cuda import Gpu
from tests.fake_tensorrt import TensorRT, simulated_tensorrt
from tests.prepare_bundle import MOST_SIDE, write_with_prepare
from tests.runtime.backends.test_tensorrt import code_of
from tests.simulated_engines import store_engines, store_preparing_engines

Simulated = tuple[Gpu, TensorRT]
SIZES = [(40, 48), (33, 90), (301, 257), (40, 48), (64, 64), (512, 300)]
PICTURES = [np.random.default_rng(seed).integers(0, 256, size, np.uint8) for seed, size in enumerate(SIZES)]
COMMITTED = Path(__file__).parents[2] / "data" / "dicom"


@pytest.fixture(scope="module")
def preparing(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_with_prepare(tmp_path_factory.mktemp("prepare"))


@pytest.fixture(scope="module")
def bound(preparing: Bundle) -> float:
    """What the gate lets scores be off."""
    (answers,) = read_golden(preparing).answers.values()
    return widest(answers, answers)


def on_device(bundle: Bundle, site: Path | None, **options: Any) -> Scorer:
    settings = {"backend": "tensorrt", "prepare": "device", **options}
    return Scorer.open(bundle.path, site=site, threads=1, **settings)


def on_cpu(bundle: Bundle, **options: Any) -> Scorer:
    return Scorer.open(bundle.path, site=None, threads=1, **options)


def score(scorer: Scorer, source: Any, **declared: Any) -> Result:
    return scorer.score(source, **{"modality": "DX", **declared})


def numbers(result: Result) -> np.ndarray:
    return np.array([each.logit for each in result.scores.values()])


def codes(result: Result) -> list[str]:
    return [each["code"] for each in result.to_json()["notices"]]


def levels_off(scorer: Scorer, image: StoredImage) -> float:
    """How many grey levels of 255 the device's pixels are off the CPU's."""
    graphs = scorer._graphs
    assert graphs.preparing
    std = np.array(scorer.bundle.manifest.preprocessing.normalise.std)[:, None, None]
    return float(np.abs((graphs.preparing.run(image) - image.network_input.pixels) * 255 * std).max())


def refusal(call: Any) -> PromptRayError:
    with pytest.raises(PromptRayError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_pictures_of_any_size_score_as_on_the_cpu(
    preparing: Bundle, bound: float, site: Path, tensorrt: Simulated, cuda_graphs: bool
) -> None:
    store_preparing_engines(preparing, site, tensorrt[0])
    options = GpuOptions(cuda_graphs=cuda_graphs)
    with on_cpu(preparing) as cpu, on_device(preparing, site, gpu=options) as scorer:
        for picture in PICTURES:
            prepared = scorer.prepare(picture, modality="DX")
            assert isinstance(prepared.image, StoredImage)
            assert levels_off(scorer, prepared.image) <= 1.001
            found, wanted = scorer.infer(prepared), score(cpu, picture)
            assert np.abs(numbers(found) - numbers(wanted)).max() <= bound
            assert found.to_json()["transform"] == wanted.to_json()["transform"]
            assert codes(found) == codes(wanted)
            assert numbers(score(scorer, picture)).tolist() == numbers(found).tolist(), "the same bits again"


def test_the_result_says_where_images_are_prepared(
    preparing: Bundle, site: Path, tensorrt: Simulated
) -> None:
    facts = store_preparing_engines(preparing, site, tensorrt[0])
    with on_device(preparing, site) as scorer:
        said = score(scorer, PICTURES[0]).to_json()["backend"]
    assert said["prepare"] == "device"
    assert said["gated_as"] == f"tensorrt@{facts.key}, images prepared on the device"
    with on_device(preparing, site, prepare="cpu") as scorer:
        result = score(scorer, PICTURES[0])
        assert result.to_json()["backend"]["prepare"] == "cpu"
        assert result.to_json()["backend"]["gated_as"] == f"tensorrt@{facts.key}"
        assert isinstance(scorer.prepare(PICTURES[0], modality="DX").image.picture, np.ndarray)
    with on_cpu(preparing) as scorer:
        assert score(scorer, PICTURES[0]).to_json()["backend"]["prepare"] == "cpu"


def test_real_dicom_scores_as_on_the_cpu_and_is_refused_alike(
    preparing: Bundle, bound: float, site: Path, tensorrt: Simulated, data_dir: Path | None
) -> None:
    """The committed files, or all of the folder given with --data."""
    store_preparing_engines(preparing, site, tensorrt[0])
    folder = data_dir / "dicom" if data_dir else COMMITTED
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as table:
        files = [folder / row["file"] for row in csv.DictReader(table)]
    scored = on_the_device = 0
    with on_cpu(preparing) as cpu, on_device(preparing, site) as scorer:
        wanted = list(cpu.score_many(files))
        for path, expected, found in zip(files, wanted, scorer.score_many(files), strict=True):
            if isinstance(expected, Refused):
                assert isinstance(found, Refused), path.name
                assert found.error.to_json() == expected.error.to_json(), path.name
                continue
            assert isinstance(found, Result), path.name
            scored += 1
            assert [code for code in codes(found) if code != "prepared-on-cpu"] == codes(expected)
            assert np.abs(numbers(found) - numbers(expected)).max() <= bound, path.name
            if "prepared-on-cpu" not in codes(found):
                on_the_device += 1
                prepared = scorer.prepare(path)
                assert isinstance(prepared.image, StoredImage)
                assert prepared.image.tabulated.codes.dtype.itemsize <= 2
                assert levels_off(scorer, prepared.image) <= 1.001, path.name
    assert scored >= 3
    assert on_the_device >= 3


def test_stored_values_reach_the_device_and_the_door_sees_their_grey(
    preparing: Bundle, bound: float, site: Path, tensorrt: Simulated
) -> None:
    store_preparing_engines(preparing, site, tensorrt[0])
    stored = np.random.default_rng(2).integers(0, 4096, (90, 70)).astype(np.uint16)
    film = dataset(stored)
    with on_cpu(preparing) as cpu, on_device(preparing, site) as scorer:
        prepared = scorer.prepare(film)
        assert isinstance(prepared.image, StoredImage)
        assert (prepared.image.tabulated.codes == stored).all()
        assert (prepared.image.tabulated.grey == cpu.picture(film).grey).all()
        assert np.abs(numbers(scorer.infer(prepared)) - numbers(cpu.score(film))).max() <= bound
        assert cpu.picture(film).tabulated is None, "what nobody needs is not kept"
        for source in (np.full((40, 40), 7, np.uint8), np.zeros((8, 8), np.uint8)):
            ours, theirs = (refusal(partial(score, each, source)) for each in (scorer, cpu))
            assert ours.to_json() == theirs.to_json()


@pytest.mark.parametrize("what", ["larger", "deeper"])
def test_what_the_device_cannot_take_is_prepared_on_the_cpu_and_said(
    preparing: Bundle, site: Path, tensorrt: Simulated, what: str
) -> None:
    store_preparing_engines(preparing, site, tensorrt[0])
    random = np.random.default_rng(7)
    sources = {
        "larger": random.integers(0, 256, (60, MOST_SIDE + 1), np.uint8),
        "deeper": dataset(
            random.integers(0, 1 << 20, (60, 50)).astype(np.uint32),
            Modality="DX",
            BitsStored=20,
            HighBit=19,
            WindowCenter=1 << 19,
            WindowWidth=1 << 20,
        ),
    }
    with on_cpu(preparing) as cpu, on_device(preparing, site) as scorer:
        found, wanted = score(scorer, sources[what]), score(cpu, sources[what])
        assert codes(found) == [*codes(wanted), "prepared-on-cpu"]
        assert numbers(found).tolist() == numbers(wanted).tolist()
        assert "prepared-on-cpu" not in codes(score(scorer, PICTURES[0])), "of this image alone"


def test_an_array_of_32_bits_goes_as_its_grey(
    preparing: Bundle, bound: float, site: Path, tensorrt: Simulated
) -> None:
    store_preparing_engines(preparing, site, tensorrt[0])
    deep = np.random.default_rng(7).integers(0, 1 << 20, (60, 50)).astype(np.int32)
    facts = Photometric(bits_stored=32, signed=True)
    with on_cpu(preparing) as cpu, on_device(preparing, site) as scorer:
        found, wanted = (score(each, deep, photometric=facts) for each in (scorer, cpu))
        assert codes(found) == codes(wanted)
        assert np.abs(numbers(found) - numbers(wanted)).max() <= bound


def test_where_nothing_prepares_on_the_device_it_is_refused_by_name(
    miniature: Bundle, preparing: Bundle, site: Path, tmp_path: Path, tensorrt: Simulated
) -> None:
    facts = store_engines(preparing, site, tensorrt[0])
    without = refusal(lambda: on_device(preparing, site))
    assert (without.code, without.artefact) == ("engine.no-prepare", "tensorrt")
    assert facts.key in str(without.found)
    assert "promptray engine" in str(without.cure)
    assert "prepare: true" not in str(without.cure)
    store_engines(miniature, tmp_path / "other", tensorrt[0])
    no_graph = refusal(lambda: on_device(miniature, tmp_path / "other"))
    assert (no_graph.code, no_graph.found) == ("engine.no-prepare", "a bundle without a graph that does it")
    for backend in ("onnxruntime-cpu", "auto"):
        of_the_host = refusal(lambda backend=backend: on_device(preparing, None, backend=backend))
        assert (of_the_host.code, of_the_host.artefact) == ("engine.no-prepare", "onnxruntime-cpu")
        assert "prepare: true" not in str(of_the_host.cure), "the bundle has the graph"
    with pytest.raises(ValueError, match="prepare must be"):
        on_device(preparing, site, prepare="gpu")


def test_auto_says_why_engines_that_prepare_were_passed_over(
    preparing: Bundle, site: Path, tensorrt: Simulated
) -> None:
    store_preparing_engines(preparing, site, tensorrt[0])
    tensorrt[0].name = "Another GPU"
    error = refusal(lambda: on_device(preparing, site, backend="auto"))
    assert error.code == "engine.no-prepare"
    assert error.found == "the engines for tensorrt are not for this machine (engine.foreign)"


def test_a_stored_image_on_a_chain_that_does_not_prepare_is_no_input(
    preparing: Bundle, site: Path, tensorrt: Simulated
) -> None:
    store_preparing_engines(preparing, site, tensorrt[0])
    with on_device(preparing, site) as scorer, on_device(preparing, site, prepare="cpu") as plain:
        prepared = scorer.prepare(PICTURES[0], modality="DX")
        assert refusal(lambda: plain.infer(prepared)).code == "score.input"
        with on_cpu(preparing) as cpu:
            assert refusal(lambda: cpu.infer(prepared)).code == "score.input"


def spoiled(content: bytes, levels: float) -> bytes:
    """The graph with pixels that are some levels off."""
    model = onnx.load_from_string(content)
    (last,) = (node for node in model.graph.node if "pixels" in node.output)
    (centred,) = (node for node in model.graph.node if last.input[0] in node.output)
    (mean,) = (each for each in model.graph.initializer if each.name == centred.input[1])
    off = numpy_helper.to_array(mean) + np.float32(levels / 255)
    mean.CopyFrom(numpy_helper.from_array(off, mean.name))
    return bytes(model.SerializeToString())


def of_8_bits(content: bytes) -> bytes:
    """The graph with a look-up that knows 8 bits alone."""
    model = onnx.load_from_string(content)
    (gather,) = (node for node in model.graph.node if node.op_type == "Gather")
    model.graph.initializer.append(numpy_helper.from_array(np.array(255, np.int32), "most"))
    model.graph.node.insert(0, onnx.helper.make_node("Min", ["codes", "most"], ["clipped"]))
    gather.input[1] = "clipped"
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("spoil", [partial(spoiled, levels=4), of_8_bits], ids=["everywhere", "16 bits"])
def test_an_engine_with_other_pixels_than_it_was_gated_with_is_found_at_opening(
    preparing: Bundle, site: Path, tensorrt: Simulated, spoil: Callable[[bytes], bytes]
) -> None:
    wrong = spoil(preparing.read(PREPARE))
    store_preparing_engines(preparing, site, tensorrt[0], content=wrong)
    error = refusal(lambda: on_device(preparing, site))
    assert (error.code, error.expected) == ("bundle.golden", "within 1 grey level")
    with on_device(preparing, site, prepare="cpu") as scorer:
        assert numbers(score(scorer, PICTURES[0])).size, "the rest of the set is as it was"


def test_images_under_way_at_once_do_not_mix(preparing: Bundle, site: Path, tensorrt: Simulated) -> None:
    store_preparing_engines(preparing, site, tensorrt[0])
    with on_device(preparing, site) as scorer:
        expected = [numbers(score(scorer, each)).tolist() for each in PICTURES]
        prepared = [scorer.prepare(each, modality="DX") for each in PICTURES * 2]
        pending = [scorer.submit(each) for each in prepared]
        assert [numbers(each.result()).tolist() for each in pending] == expected * 2
        with ThreadPoolExecutor(4) as threads:
            found = threads.map(lambda each: numbers(scorer.infer(each)).tolist(), prepared * 2)
        assert list(found) == expected * 4


def test_tensorrt_rtx_compiles_nothing_for_the_size_of_an_image(
    preparing: Bundle, bound: float, site: Path
) -> None:
    """Its gate sees a few sizes: the kernel for all of them is what it gates."""
    with simulated_tensorrt(flavour="tensorrt_rtx") as (gpu, library):
        store_preparing_engines(preparing, site, gpu, backend="tensorrt_rtx")
        with on_cpu(preparing) as cpu, on_device(preparing, site, backend="tensorrt_rtx") as scorer:
            assert library.specialised, "what scores is compiled eagerly"
            assert all("codes" not in shapes for shapes in library.specialised)
            before = len(library.specialised)
            for picture in PICTURES:
                found, wanted = score(scorer, picture), score(cpu, picture)
                assert np.abs(numbers(found) - numbers(wanted)).max() <= bound
            assert len(library.specialised) == before
        gpu.assert_clean()


def test_a_size_that_was_seen_allocates_nothing(preparing: Bundle, site: Path, tensorrt: Simulated) -> None:
    gpu, _ = tensorrt
    store_preparing_engines(preparing, site, gpu)
    with on_device(preparing, site, gpu=GpuOptions(streams=1)) as scorer:
        largest = max(PICTURES, key=lambda each: each.size)
        score(scorer, largest)
        before, held = gpu.calls.copy(), gpu.held
        for _ in range(3):
            score(scorer, largest)
            score(scorer, PICTURES[0])
        assert (gpu.calls - before)["allocation"] == 0
        assert gpu.held == held
        made = gpu.calls - before
        assert (made["cudaGraphLaunch"], made["cudaStreamSynchronize"]) == (6, 6)


def test_out_of_memory_leaves_the_scorer_usable(preparing: Bundle, site: Path) -> None:
    with simulated_tensorrt() as (gpu, library):
        store_preparing_engines(preparing, site, gpu)
        with on_device(preparing, site, gpu=GpuOptions(streams=1)) as scorer:
            expected = numbers(score(scorer, PICTURES[2])).tolist()
        allocations, code = 0, "backend.out-of-memory"
        while code is not None:
            with on_device(preparing, site, gpu=GpuOptions(streams=1)) as scorer:
                gpu.refuse_allocation(allocations)
                code = code_of(partial(score, scorer, PICTURES[2]))
                gpu.heal()
                assert code in (None, "backend.out-of-memory")
                assert numbers(score(scorer, PICTURES[2])).tolist() == expected
                allocations += code is not None
        assert allocations >= 2, "memory for the image, of the host and of the device"
        with on_device(preparing, site) as scorer:
            library.fails_next = True
            assert refusal(lambda: score(scorer, PICTURES[0])).code == "backend.failed"
            score(scorer, PICTURES[0])
        gpu.assert_clean()


def test_a_lost_device_closes_the_scorer(preparing: Bundle, site: Path) -> None:
    with simulated_tensorrt() as (gpu, _):
        store_preparing_engines(preparing, site, gpu)
        with on_device(preparing, site) as scorer:
            prepared = scorer.prepare(PICTURES[2], modality="DX")
            gpu.lose_device(1)
            assert refusal(lambda: scorer.infer(prepared)).code == "backend.device-lost"
            assert refusal(lambda: scorer.infer(prepared)).code == "score.closed"
