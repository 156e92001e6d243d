"""The engine that prepares images: compiled and gated with its set, from the file to the score."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest

from promptray.calibrate.engines.build import Asked, Outcome, build_set
from promptray.calibrate.engines.installed import TensorRt, open_library
from promptray.calibrate.engines.library import Told
from promptray.calibrate.engines.prepare_gate import hold_prepare
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.manifest import Graph
from promptray.runtime.bundle.validate_engines import PREPARE
from promptray.runtime.engines.facts import Device, EngineBackend
from promptray.runtime.engines.settings import Range, Settings
from promptray.runtime.engines.sources import prepare_source
from promptray.runtime.engines.store import EngineStore
from promptray.runtime.errors import BundleError, PromptRayError
from promptray.runtime.golden import read_golden
from promptray.runtime.golden_prepare import largest_golden
from promptray.runtime.prepare_graph import PrepareFacts, StoredImage
from promptray.runtime.scorer import Scorer
from promptray.runtime.site import Site
from tests.engine_bundle import timed
from tests.engine_factory import ADA, ORIN
from tests.fake_cuda import Gpu, simulated
from tests.fake_tensorrt import VERSION, simulated_tensorrt
from tests.prepare_bundle import SETTINGS, write_with_prepare
from tests.runtime.backends.test_tensorrt_prepare import of_8_bits, spoiled
from tests.simulated_engines import device_of, plans_of, prepare_plan


class Simulated(TensorRt):
    """TensorRT with plans that the simulated one runs; its builder needs a GPU."""

    backend: EngineBackend = "tensorrt"
    version = VERSION

    def __init__(self, gpu: Gpu, spoil: Callable[[bytes], bytes] = lambda content: content) -> None:
        self._gpu = None
        self.device, self._simulated, self._spoil = device_of(gpu), gpu, spoil
        self.compiled: list[str] = []

    def compile(
        self, bundle: Bundle, graph: Graph | PrepareFacts, settings: Settings, told: Told,
        cancelled: threading.Event,
    ) -> bytes:  # fmt: skip
        self.compiled.append(graph.title)
        if isinstance(graph, PrepareFacts):
            return prepare_plan(self._spoil(bundle.read(graph.file)), bundle, self._simulated)
        name = graph.role if graph.head is None else f"head.{graph.head}"
        return plans_of(bundle, self._simulated)[name]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return write_with_prepare(tmp_path_factory.mktemp("prepare"))


@pytest.fixture
def store(bundle: Bundle, tmp_path: Path) -> EngineStore:
    return EngineStore(Site.open(tmp_path, bundle.hash), bundle.manifest)


@pytest.fixture
def gpu() -> Iterator[Gpu]:
    with simulated_tensorrt() as (gpu, _):
        yield gpu
        gpu.assert_clean()


def built(bundle: Bundle, store: EngineStore, library: Any, **asked: Any) -> Outcome:
    wanted = Asked(settings=SETTINGS, **asked)
    return build_set(bundle, store, library, wanted, progress=lambda *_: None, measure=timed(own=1.0))


def test_a_set_prepares_images_after_its_gate(
    bundle: Bundle, store: EngineStore, gpu: Gpu, tmp_path: Path
) -> None:
    library = Simulated(gpu)
    facts = built(bundle, store, library).facts
    assert library.compiled == ["image", "head chest", "prepare"]
    assert [(each.role, each.file) for each in facts.graphs][-1] == ("prepare", PREPARE)
    assert facts.precision == "fp32"
    prepare = facts.gate.prepare
    assert prepare is not None
    assert (prepare.pictures, prepare.passed) == (len(bundle.manifest.golden.images), True)
    assert prepare.level_error <= prepare.level_tolerance == 1.001
    assert [head.head for head in prepare.heads] == ["chest"]
    assert prepare.heads[0].score_error <= prepare.heads[0].score_tolerance
    with Scorer.open(bundle.path, site=tmp_path, backend="tensorrt", threads=1, prepare="device") as scorer:
        said = scorer.score(bundle.path / bundle.manifest.golden.images[0], modality="DX").to_json()
    assert said["backend"]["prepare"] == "device"
    assert said["backend"]["engines"]["key"] == facts.key
    assert not built(bundle, store, library).gated, "it is there"


@pytest.mark.parametrize("levels", [1.5, 90.0])
def test_other_pixels_are_refused_and_nothing_is_stored(
    bundle: Bundle, store: EngineStore, gpu: Gpu, levels: float
) -> None:
    with pytest.raises(PromptRayError) as caught:
        built(bundle, store, Simulated(gpu, partial(spoiled, levels=levels)))
    assert caught.value.code == "gate.failed"
    assert str(caught.value.expected).startswith("at most pixels 1 grey level")
    assert re.match(r"pixels [0-9.]+ grey levels", str(caught.value.found))
    assert "--without-prepare" in str(caught.value.cure)
    assert store.sets == ()


def test_an_engine_that_is_wrong_beyond_8_bits_is_refused(
    bundle: Bundle, store: EngineStore, gpu: Gpu
) -> None:
    """Golden images have codes up to 255, DICOM up to 65,535."""
    with pytest.raises(PromptRayError, match="pixels or answers") as caught:
        built(bundle, store, Simulated(gpu, of_8_bits))
    assert caught.value.code == "gate.failed"
    assert store.sets == ()


class Answering:
    """Prepares as the CPU does, and answers as the golden set has it, with maps that are off by 0.5."""

    def __init__(self, bundle: Bundle) -> None:
        (golden,) = read_golden(bundle).answers.values()
        assert golden.maps is not None
        rows = zip(golden.logits[:, None], golden.maps[:, None] + np.float32(0.5), strict=True)
        self.preparing, self._rows = self, list(rows)

    def chain(self, heads: Any) -> Any:
        rows = iter(self._rows)
        return SimpleNamespace(run=lambda image: [next(rows)])

    def run(self, image: StoredImage) -> Any:
        return image.network_input.pixels


def held(bundle: Bundle) -> PromptRayError:
    facts: Any = SimpleNamespace(settings=SETTINGS, title="engines of a test")
    device: Any = Answering(bundle)
    heads: Any = {"chest": None}
    with pytest.raises(PromptRayError) as caught:
        hold_prepare(bundle, device, heads, facts)
    assert caught.value.code == "gate.failed"
    return caught.value


def test_a_refusal_names_what_failed_and_nothing_else(bundle: Bundle) -> None:
    """Pixels and scores are as they must be; maps alone are not."""
    error = held(bundle)
    assert "other pixels or answers" in error.message
    assert re.fullmatch(r"at most chest: scores [0-9.e-]+, maps 0\.1 off", str(error.expected))
    assert error.found == "chest: scores 0, maps 0.5"


def test_without_a_grey_golden_image_nothing_is_said_of_pixels(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("promptray.runtime.golden_prepare.golden_images", lambda bundle: iter(()))
    error = held(bundle)
    assert "no golden image in grey" in error.message
    assert "other pixels" not in error.message
    assert "doctor" not in str(error.cure)


def test_golden_images_that_the_engine_does_not_take_are_said_with_a_cure_that_works(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a bundle that `promptray build` did not write: it refuses such sides."""
    largest = largest_golden(bundle)
    for most, refused in ((largest, False), (largest - 1, True)):
        monkeypatch.setattr(f"{__name__}.SETTINGS", Settings(sides=Range(tuned=16, most=most)))
        error = held(bundle)
        assert ("larger than the engine" in error.message) is refused
        assert (f"tensorrt.sides.most of at least {largest}" in str(error.cure)) is refused


def test_pixels_that_are_no_numbers_are_refused(bundle: Bundle, store: EngineStore, gpu: Gpu) -> None:
    with pytest.raises(PromptRayError) as caught:
        built(bundle, store, Simulated(gpu, partial(spoiled, levels=float("nan"))))
    assert caught.value.code == "score.not-finite"
    assert store.sets == ()


def test_it_can_be_left_out(bundle: Bundle, store: EngineStore, gpu: Gpu) -> None:
    library = Simulated(gpu)
    without = built(bundle, store, library, prepare=False).facts
    assert (without.prepares, without.gate.prepare) == (False, None)
    assert library.compiled == ["image", "head chest"]
    whole = built(bundle, store, library).facts
    assert whole.key != without.key
    assert len(store.sets) == 2


@pytest.mark.parametrize("change", ["no gate", "not passed", "no engine"])
def test_a_stored_set_whose_engine_passed_no_gate_is_damaged(
    bundle: Bundle, store: EngineStore, gpu: Gpu, change: str
) -> None:
    facts = built(bundle, store, Simulated(gpu)).facts
    plans = {name: bytes(plan) for name, plan in store.opened(facts).all_plans().items()}
    prepare = facts.gate.prepare
    assert prepare
    changed = {
        "no gate": msgspec.structs.replace(facts, gate=msgspec.structs.replace(facts.gate, prepare=None)),
        "not passed": msgspec.structs.replace(
            facts,
            gate=msgspec.structs.replace(
                facts.gate, prepare=msgspec.structs.replace(prepare, level_error=2.0)
            ),
        ),
        "no engine": msgspec.structs.replace(facts, graphs=facts.graphs[:-1]),
    }[change]
    store.remove(facts.key)
    store.add(changed, plans)
    with pytest.raises(BundleError) as caught:
        _ = store.sets
    assert caught.value.code == "site.corrupt"


@pytest.mark.parametrize(
    ("backend", "version", "device", "there"),
    [
        ("tensorrt", "10.3.0", ORIN, True),
        ("tensorrt", "8.6.0", ORIN, False),
        ("tensorrt_rtx", "1.7.1.116", ADA, True),
        ("tensorrt_rtx", "1.7.1.116", msgspec.structs.replace(ADA, compute_capability="7.5"), False),
        ("onnxruntime-cuda", "1.31.1", ADA, False),
    ],
)
def test_which_libraries_take_the_graph(
    bundle: Bundle, backend: str, version: str, device: Device, there: bool
) -> None:
    found = prepare_source(bundle.manifest, backend, version, device)
    assert (found is not None) is there


def test_tensorrt_rtx_compiles_it_for_images_of_every_size(bundle: Bundle) -> None:
    with simulated(Gpu(compute_capability=(8, 6))):
        library = open_library("tensorrt_rtx", None)
        facts = PrepareFacts.of(PREPARE, bundle.manifest.preprocessing)
        plan = library.compile(bundle, facts, Settings(), lambda *_: None, threading.Event())
    assert len(plan) > 1000


def test_its_facts_are_those_of_the_graph(bundle: Bundle) -> None:
    graph = onnx.load_from_string(bundle.read(PREPARE)).graph
    facts = PrepareFacts.of(PREPARE, bundle.manifest.preprocessing)
    for declared, found in ((facts.inputs, graph.input), (facts.outputs, graph.output)):
        assert [(each.name, len(each.dims)) for each in declared] == [
            (each.name, len(each.type.tensor_type.shape.dim)) for each in found
        ]
        for own, value in zip(declared, found, strict=True):
            dims = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
            assert list(own.dims) == dims
            assert onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type) == own.dtype
