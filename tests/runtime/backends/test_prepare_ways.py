"""Images prepared on a simulated GPU by every way through the scorer: examinations, deadlines, colour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptray.runtime.backends import GpuOptions
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.manifest import Examination
from promptray.runtime.gated_answers import widest
from promptray.runtime.golden import read_golden
from promptray.runtime.prepare_graph import StoredImage
from tests.exam_scoring import values
from tests.prepare_bundle import MOST_SIDE, with_prepare
from tests.runtime.backends.test_tensorrt_prepare import (
    PICTURES,
    Simulated,
    codes,
    numbers,
    on_cpu,
    on_device,
    refusal,
    score,
)
from tests.simulated_engines import store_preparing_engines

RULE = Examination(views=["PA", "LL"], over_views="mean", over_sides="none", require_all=True)


@pytest.fixture(scope="module")
def preparing(miniature: Bundle, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The miniature with such a graph and a rule for examinations."""
    return with_prepare(miniature, tmp_path_factory.mktemp("ways") / "ways.bundle", examination=RULE)


def bound_of(bundle: Bundle) -> float:
    """What the gate lets scores be off."""
    (answers,) = read_golden(bundle).answers.values()
    return widest(answers, answers)


def test_an_examination_is_pooled_of_images_that_the_device_prepared(
    preparing: Bundle, site: Path, tensorrt: Simulated
) -> None:
    store_preparing_engines(preparing, site, tensorrt[0])
    large = np.random.default_rng(7).integers(0, 256, (60, MOST_SIDE + 1), np.uint8)
    declared: dict[str, Any] = {"views": ["PA", "LL"], "modality": "DX"}
    with on_cpu(preparing) as cpu, on_device(preparing, site) as scorer:
        found, wanted = (each.score_exam([PICTURES[0], large], **declared) for each in (scorer, cpu))
        assert np.abs(values(found.examination) - values(wanted.examination)).max() <= bound_of(preparing)
        (first, second), (plain, _) = found.results, wanted.results
        assert codes(first) == codes(plain)
        assert codes(second)[-1] == "prepared-on-cpu", "of this image alone"
        assert numbers(first).tolist() == numbers(score(scorer, PICTURES[0])).tolist()
        for each in (scorer, cpu):
            twice = refusal(lambda each=each: each.score_exam([PICTURES[1], PICTURES[1].copy()], **declared))
            assert twice.code == "exam.mixed"


def test_a_deadline_passes_while_the_device_prepares(
    preparing: Bundle, site: Path, tensorrt: Simulated
) -> None:
    gpu, _ = tensorrt
    store_preparing_engines(preparing, site, gpu)
    with on_device(preparing, site, gpu=GpuOptions(streams=1)) as scorer:
        expected = [numbers(score(scorer, each)).tolist() for each in PICTURES[:3]]
        assert refusal(lambda: score(scorer, PICTURES[0], deadline=0.0)).code == "score.deadline"
        prepared = scorer.prepare(PICTURES[0], modality="DX")
        assert isinstance(prepared.image, StoredImage)
        gpu.hangs = True
        for _ in range(2):  # the second finds the program in the air, and its buffers with it
            assert refusal(lambda: scorer.infer(prepared, deadline=0.01)).code == "score.deadline"
        gpu.hangs = False
        found = [numbers(score(scorer, each, deadline=60.0)).tolist() for each in PICTURES[:3]]
        assert found == expected


def test_a_picture_in_colour_is_prepared_on_the_cpu_and_one_in_grey_is_not(
    open_clip_bundle: Path, site: Path, tensorrt: Simulated, tmp_path: Path
) -> None:
    """A model that reads colour: the device has a table of greys, and no more."""
    bundle = with_prepare(Bundle.open(open_clip_bundle), tmp_path / "colour.bundle")
    assert bundle.manifest.preprocessing.colour == "rgb"
    store_preparing_engines(bundle, site, tensorrt[0])
    random = np.random.default_rng(3)
    colour = random.integers(0, 256, (120, 90, 3), np.uint8)
    grey = random.integers(0, 256, (120, 90), np.uint8)
    with on_cpu(bundle) as cpu, on_device(bundle, site) as scorer:
        found, wanted = score(scorer, png(tmp_path, colour)), score(cpu, png(tmp_path, colour))
        assert sorted(codes(found)) == sorted([*codes(wanted), "prepared-on-cpu"])
        assert numbers(found).tolist() == numbers(wanted).tolist()
        found, wanted = score(scorer, png(tmp_path, grey)), score(cpu, png(tmp_path, grey))
        assert codes(found) == codes(wanted)
        assert np.abs(numbers(found) - numbers(wanted)).max() <= bound_of(bundle)


def png(folder: Path, levels: np.ndarray[Any, Any]) -> Path:
    """Write a picture."""
    from PIL import Image

    path = folder / f"{levels.ndim}.png"
    Image.fromarray(levels).save(path)
    return path
