"""On a GPU: engines give the bundle's scores, with and without CUDA graphs, and survive a lack of memory.

Run with ``make gpu``; nothing of this was run where there was no GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from promptray.calibrate.engines.build import Asked, build_set
from promptray.calibrate.engines.installed import open_library
from promptray.runtime.backends import OF_ENGINES, GpuOptions
from promptray.runtime.bundle import Bundle
from promptray.runtime.engines.facts import EngineBackend
from promptray.runtime.engines.store import EngineStore
from promptray.runtime.errors import PromptRayError
from promptray.runtime.golden import read_golden
from promptray.runtime.preprocess import normalise
from promptray.runtime.scorer import Scorer
from promptray.runtime.site import Site

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


@pytest.fixture(
    scope="module", params=["carzero_bundle", "open_clip_bundle", "asg_both_bundle", "reference_bundle"]
)
def bundle(request: pytest.FixtureRequest) -> Bundle:
    return Bundle.open(request.getfixturevalue(request.param))


@pytest.fixture(scope="module")
def site(bundle: Bundle, backend: EngineBackend, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A site with fp32 engines of the bundle, which passed the golden gate on this GPU."""
    folder = tmp_path_factory.mktemp("site")
    store = EngineStore(Site.open(folder, bundle.hash), bundle.manifest)
    build_set(bundle, store, open_library(backend, None), Asked(precision="fp32"), progress=lambda *_: None)
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
        assert head.score_error <= 10 * head.score_tolerance


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
