"""On a GPU: engines give the bundle's scores in fp32 and fp16, with and without CUDA graphs, of arrays of the
host and of the device, of images that the device prepares; and they survive a lack of memory.

Run with ``make gpu``; nothing of this was run where there was no GPU.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from promptray.calibrate.engines.build import Asked, build_set
from promptray.calibrate.engines.installed import open_library
from promptray.runtime.backends import OF_ENGINES, GpuOptions
from promptray.runtime.bundle import Bundle
from promptray.runtime.engines.facts import EngineBackend
from promptray.runtime.engines.sources import precisions
from promptray.runtime.engines.store import EngineStore
from promptray.runtime.errors import PromptRayError
from promptray.runtime.golden import read_golden
from promptray.runtime.prepare_graph import StoredImage
from promptray.runtime.preprocess import normalise
from promptray.runtime.scorer import Scorer
from promptray.runtime.site import Site
from tests.gpu_bundles import NAMES, PRECISIONS, SAMPLES, gpu_bundle
from tests.runtime.backends.test_tensorrt_prepare import levels_off

pytestmark = pytest.mark.gpu


def test_some_backend_works_here() -> None:
    """A run that skipped them all would look like one that passed."""
    refused = {}
    for name in OF_ENGINES:
        try:
            open_library(name, None)
        except PromptRayError as error:
            refused[name] = error.message
    assert len(refused) < len(OF_ENGINES), refused


@pytest.fixture(scope="module", params=OF_ENGINES)
def backend(request: pytest.FixtureRequest) -> EngineBackend:
    name: EngineBackend = request.param
    try:
        open_library(name, None)
    except PromptRayError as error:
        pytest.skip(f"{name}: {error.message}")
    return name


@pytest.fixture(scope="module", params=NAMES)
def bundle(request: pytest.FixtureRequest, shared_dir: Path) -> Bundle:
    return gpu_bundle(shared_dir, request.param)


@pytest.fixture(scope="module", params=PRECISIONS)
def site(
    request: pytest.FixtureRequest,
    bundle: Bundle,
    backend: EngineBackend,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A site with engines of the bundle in a precision, which passed the golden gate on this GPU."""
    library = open_library(backend, None)
    if request.param not in precisions(bundle.manifest, backend, library.version):
        pytest.skip(f"{backend} {library.version} has no {request.param} graphs to read")
    folder = tmp_path_factory.mktemp("site")
    store = EngineStore(Site.open(folder, bundle.hash), bundle.manifest)
    build_set(bundle, store, library, Asked(precision=request.param), progress=lambda *_: None)
    return folder


@pytest.fixture(params=[True, False], ids=["graphs", "no graphs"])
def scorer(request: pytest.FixtureRequest, bundle: Bundle, backend: str, site: Path) -> Iterator[Scorer]:
    options = GpuOptions(cuda_graphs=request.param)
    with Scorer.open(bundle.path, backend=backend, site=site, gpu=options) as opened:
        yield opened


def test_the_golden_scores(scorer: Scorer) -> None:
    report = scorer.check_golden()
    assert report.pictures >= 16
    for head in report.heads:
        assert head.score_error <= head.score_tolerance


def test_the_same_bits_on_every_run(scorer: Scorer) -> None:
    bundle = scorer.bundle
    pixels = normalise(read_golden(bundle).pictures[:1], bundle.manifest.preprocessing)
    first = scorer.submit_pixels(pixels).result()
    for _ in range(20):
        again = scorer.submit_pixels(pixels).result()
        for one, other in zip(first.heads, again.heads, strict=True):
            assert np.array_equal(one.logits, other.logits)


def test_many_under_way_are_those_of_one_at_a_time(scorer: Scorer) -> None:
    bundle = scorer.bundle
    pixels = normalise(read_golden(bundle).pictures, bundle.manifest.preprocessing)
    alone = [scorer.submit_pixels(pixels[n : n + 1]).result() for n in range(len(pixels))]
    pending = [scorer.submit_pixels(pixels[n : n + 1]) for n in range(len(pixels))]
    for one, other in zip(alone, (each.result() for each in pending), strict=True):
        for mine, yours in zip(one.heads, other.heads, strict=True):
            assert np.array_equal(mine.logits, yours.logits)


class Interface:
    """An array of a library that has `__cuda_array_interface__` and no DLPack."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor
        self.__cuda_array_interface__ = tensor.__cuda_array_interface__


@pytest.mark.parametrize("offered", [lambda tensor: tensor, Interface], ids=["DLPack", "interface"])
def test_arrays_of_the_device_score_as_those_of_the_host(
    scorer: Scorer, offered: Callable[[torch.Tensor], Any]
) -> None:
    if not torch.cuda.is_available():
        pytest.skip("torch, which holds the arrays, is here without CUDA")
    pixels = normalise(read_golden(scorer.bundle).pictures[:1], scorer.bundle.manifest.preprocessing)
    host = scorer.submit_pixels(pixels).result()
    whole = torch.zeros(pixels.size + 4, device="cuda")
    torch.cuda.synchronize()
    places = {"in place": whole[: pixels.size], "copied": whole[4:]}  # whose address is no multiple of 256
    for place in places.values():
        buffer = place.view(pixels.shape)
        for _ in range(8):  # queued, recorded and launched, by each stream of the scorer
            with torch.cuda.stream(torch.cuda.Stream()):  # whose work has to be waited for
                buffer.copy_(torch.from_numpy(pixels), non_blocking=True)
                device = scorer.submit_pixels(offered(buffer)).result()
            for one, other in zip(host.heads, device.heads, strict=True):
                assert np.array_equal(one.logits, other.logits)
        buffer[0, 0, 0, 0] = torch.nan
        torch.cuda.synchronize()
        with pytest.raises(PromptRayError) as caught:
            scorer.submit_pixels(offered(buffer)).result()
        assert caught.value.code == "score.not-finite"


def test_images_prepared_on_the_device(bundle: Bundle, backend: str, site: Path) -> None:
    (facts,) = EngineStore(Site.open(site, bundle.hash), bundle.manifest).sets
    if not facts.prepares:
        pytest.skip(f"{facts.title} has no engine that prepares images")
    films = sorted(SAMPLES.glob("*.dcm"))
    with Scorer.open(bundle.path, backend=backend, site=site, prepare="device") as scorer:
        assert scorer.backend.prepare == "device"
        for film in films:
            prepared = scorer.prepare(film)
            assert isinstance(prepared.image, StoredImage)
            assert levels_off(scorer, prepared.image) <= 1.001
            found, again = scorer.infer(prepared).scores, scorer.score(film).scores
            assert {key: each.logit for key, each in found.items()} == {
                key: each.logit for key, each in again.items()
            }


def test_a_lack_of_memory_is_an_error_and_not_the_end(bundle: Bundle, backend: str, site: Path) -> None:
    from promptray.runtime.backends.cuda import Cuda

    device, held, size = Cuda(), [], 1 << 30
    try:
        while size > 1 << 20:
            try:
                held.append(device.memory(size))
            except PromptRayError:
                size //= 2
        with pytest.raises(PromptRayError) as caught:
            Scorer.open(bundle.path, backend=backend, site=site)
        assert caught.value.code in ("backend.out-of-memory", "backend.failed")
    finally:
        held.clear()
        device.close()
    with Scorer.open(bundle.path, backend=backend, site=site) as again:
        assert again.check_golden().pictures >= 16
