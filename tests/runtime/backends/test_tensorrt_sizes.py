"""Images of one call, in few sizes: each takes memory once, and nothing is padded."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from promptray.runtime.backends import GpuOptions
from promptray.runtime.bundle import Bundle
from promptray.runtime.scorer import Scorer
from tests.runtime.backends.test_tensorrt import Simulated, open_on_gpu
from tests.simulated_engines import store_engines


def test_memory_is_bounded_by_the_sizes_of_a_call(miniature: Bundle, site: Path, tensorrt: Simulated) -> None:
    gpu, _ = tensorrt
    store_engines(miniature, site, gpu, most={"images": 6})
    pixels = np.random.default_rng(1).normal(size=(14, 3, 32, 32)).astype(np.float32)

    def submit(images: int) -> None:
        under_way = [scorer.submit_pixels(pixels[:images]) for _ in range(2)]  # so that both streams have one
        for pending in under_way:
            pending.result()

    with open_on_gpu(miniature, site, gpu=GpuOptions(streams=2)) as scorer:
        used = [gpu.used]
        for size in (1, 2, 4, 6):
            submit(size)
            used.append(gpu.used)
        assert used[1] == used[0], "programs for one image are there from the first"
        assert used[1] < used[2] < used[3] < used[4]
        for images in (*range(1, 15), *range(14, 0, -1)):
            submit(images)
        assert gpu.used == used[-1], "no other size takes memory"


def test_a_number_of_images_that_is_no_size_goes_as_several_calls(
    miniature: Bundle, site: Path, tensorrt: Simulated
) -> None:
    store_engines(miniature, site, tensorrt[0], most={"images": 6})
    pixels = np.random.default_rng(1).normal(size=(13, 3, 32, 32)).astype(np.float32)
    with open_on_gpu(miniature, site) as scorer, Scorer.open(miniature.path, site=None, threads=1) as cpu:
        found = scorer.submit_pixels(pixels).result().heads[0]
        for first, last in ((0, 6), (6, 12), (12, 13)):
            wanted = cpu.submit_pixels(pixels[first:last]).result().heads[0]
            assert (found.logits[first:last] == wanted.logits).all()
        found = scorer.submit_pixels(pixels[:3]).result().heads[0]
        for first, last in ((0, 2), (2, 3)):
            wanted = cpu.submit_pixels(pixels[first:last]).result().heads[0]
            assert (found.logits[first:last] == wanted.logits).all()
