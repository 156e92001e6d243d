"""Real families on the simulated GPU: several heads, row buckets, folded banks; the CPU's bits."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptray.runtime.bundle import Bundle
from promptray.runtime.scorer import Scorer
from tests.runtime.backends.test_tensorrt import PICTURES, Simulated, open_on_gpu, score
from tests.simulated_engines import store_engines


@pytest.mark.parametrize("family", ["carzero_bundle", "asg_both_bundle", "open_clip_pair_bundle"])
def test_scores_and_maps_are_those_of_the_cpu(
    family: str, request: pytest.FixtureRequest, site: Path, tensorrt: Simulated
) -> None:
    gpu, _ = tensorrt
    bundle = Bundle.open(request.getfixturevalue(family))
    store_engines(bundle, site, gpu)
    with open_on_gpu(bundle, site) as scorer, Scorer.open(bundle.path, site=None, threads=1) as cpu:
        before = gpu.calls.copy()
        for picture in PICTURES[:2]:
            found, wanted = score(scorer, picture), score(cpu, picture)
            assert list(found.scores) == list(wanted.scores)
            for name, one in wanted.scores.items():
                assert found.scores[name].logit == one.logit
                assert (found.grid(name) == wanted.grid(name)).all()
        made = gpu.calls - before
        assert made["cudaGraphLaunch"] == 2, "image side and all heads in one enqueue"
        assert made["allocation"] == 0
        golden = scorer.check_golden()
        assert [each.head for each in golden.heads] == [head.name for head in bundle.manifest.heads]
