"""The graph that prepares images on a device, run on the CPU: within one grey level of its own chain."""

from __future__ import annotations

import csv
import tracemalloc
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from promptray.export.prepare_graph import prepare_graph
from promptray.export.tensorrt import Profile, build_engine, load_flavour
from promptray.runtime.bundle.image_rules import (
    CentreCrop,
    Greyscale,
    Normalise,
    PadSquare,
    Preprocessing,
    ResizeLongerSide,
    ResizeShorterSide,
    Squash,
    Step,
)
from promptray.runtime.bundle.validate_preprocessing import prepare_fault
from promptray.runtime.dicom.facts import photometric_facts, pixel_format
from promptray.runtime.dicom.greyscale import to_grey
from promptray.runtime.dicom.photometric import Photometric
from promptray.runtime.dicom.pixels import stored_values
from promptray.runtime.dicom.read import read_dataset, transfer_syntax
from promptray.runtime.engines.settings import Settings
from promptray.runtime.errors import ImageError, PromptRayError
from promptray.runtime.prepare_graph import PrepareFeeds
from promptray.runtime.preprocess import preprocess
from tests.rtx import needs_rtx

SIDE, STD = 224, [0.2449, 0.2, 0.3]


def rule(*steps: Step, **changes: Any) -> Preprocessing:
    fields = {"greyscale": Greyscale(), "channels": 3, "height": SIDE, "width": SIDE, **changes}
    return Preprocessing(steps=list(steps), normalise=Normalise(mean=[0.4978, 0.5, 0.4], std=STD), **fields)


#: Preprocessing -> the least share of pixels that must be equal, of noise whose every level is a decision.
RULES: dict[str, tuple[Preprocessing, float]] = {
    "carzero": (rule(ResizeLongerSide(size=256), PadSquare(size=256), CentreCrop(size=SIDE)), 0.8),
    "asg": (
        rule(
            ResizeLongerSide(size=256, interpolation="linear", rounding="nearest"),
            PadSquare(size=256, value=7),
            CentreCrop(size=SIDE),
        ),
        0.6,
    ),
    "open_clip": (rule(ResizeShorterSide(size=SIDE), CentreCrop(size=SIDE)), 1.0),
    "density study": (rule(Squash(size=SIDE, interpolation="bilinear")), 1.0),
    "lanczos": (
        rule(
            ResizeLongerSide(size=SIDE, interpolation="lanczos", rounding="truncate-both"),
            PadSquare(size=SIDE),
        ),
        1.0,
    ),
    "fractions": (rule(Squash(size=SIDE), levels="float32"), 1.0),
    "torch's bicubic": (rule(Squash(size=SIDE, interpolation="cubic"), levels="float32"), 1.0),
}


@lru_cache
def session(name: str) -> tuple[ort.InferenceSession, PrepareFeeds]:
    spec, _ = RULES[name]
    content = prepare_graph(spec)
    onnx.checker.check_model(onnx.load_from_string(content), full_check=True)
    return ort.InferenceSession(content, providers=["CPUExecutionProvider"]), PrepareFeeds(spec)


def off_by(name: str, feeds: dict[str, Any], grey: np.ndarray) -> np.ndarray:
    """Return how many grey levels each pixel of the network's input is off."""
    (pixels,) = session(name)[0].run(None, feeds)
    expected = preprocess(grey, RULES[name][0]).pixels
    assert pixels.shape == expected.shape
    return np.abs((pixels - expected) * 255 * np.array(STD, np.float32)[:, None, None])


SIZES = [
    (701, 510),
    (512, 512),
    (448, 448),
    (300, 401),
    (150, 181),
    (49, 49),
    (224, 224),
    (255, 256),
    (40, 700),
    (1500, 33),
]


@pytest.mark.parametrize("name", RULES)
def test_pixels_are_within_one_grey_level_of_the_cpus(name: str) -> None:
    for seed, (rows, columns) in enumerate(SIZES):
        grey = np.random.default_rng(seed).integers(0, 256, (rows, columns), np.uint8)
        feeds, geometry = session(name)[1].of_grey(grey)
        off = off_by(name, feeds, grey)
        assert geometry == preprocess(grey, RULES[name][0]).geometry
        assert off.max() <= 1.001, (rows, columns)
        assert (off <= 2e-3).mean() >= RULES[name][1], (rows, columns)


def test_what_a_crop_cuts_off_of_a_thin_picture_is_never_made() -> None:
    """Resized as a whole, 32 x 4608 pixels are 224 x 32,256: matrices of 1.2 GB, of which 4 MB are left."""
    _, feeds = session("open_clip")
    for size in ((32, 4608), (4608, 32)):
        tracemalloc.start()
        plan = feeds.plan(*size)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert (plan.down.shape, plan.across.shape) == ((SIDE, size[0]), (size[1], SIDE))
        assert most < 40e6


@pytest.mark.parametrize("name", ["open_clip", "density study", "lanczos"])
def test_a_large_bright_image_is_within_one_grey_level_where_a_filter_spans_many_pixels(name: str) -> None:
    grey = np.random.default_rng(5).integers(200, 256, (3000, 2600), np.uint8)
    feeds, _ = session(name)[1].of_grey(grey)
    off = off_by(name, feeds, grey)
    assert off.max() <= 1.001
    assert (off <= 2e-3).mean() >= 0.999


def readable(folder: Path) -> list[Path]:
    """Files of a folder of real DICOM objects whose pixels decode."""
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as table:
        return [folder / row["file"] for row in csv.DictReader(table) if row.get("decode") == "ok"]


def test_every_real_picture_is_within_one_grey_level(data_dir: Path | None) -> None:
    folders = [Path(__file__).parents[1] / "data" / "dicom"]
    folders += [path.parent for path in sorted(data_dir.rglob("manifest.csv"))] if data_dir else []
    seen, refused, types = 0, 0, set()
    for path in (file for folder in folders for file in readable(folder)):
        try:
            dataset = read_dataset(path.read_bytes())
            pixels = pixel_format(dataset)
            photometric = photometric_facts(dataset, pixels, 0)
            stored = stored_values(dataset, transfer_syntax(dataset)[0], pixels, 0)
            grey = to_grey(stored, photometric)
        except PromptRayError:
            refused += 1
            continue
        if stored.dtype.itemsize > 2:
            continue
        seen, types = seen + 1, types | {stored.dtype.str}
        for name in ("carzero", "asg", "open_clip"):
            off = off_by(name, session(name)[1].of_stored(stored, photometric)[0], grey)
            assert off.max() <= 1.001, (path.name, name)
            assert (off <= 2e-3).mean() > 0.5, (path.name, name)
    assert seen >= 10
    assert {"|u1", "<u2", "<i2"} <= types


def test_padding_inversion_and_the_full_range_are_in_the_table() -> None:
    stored = np.random.default_rng(3).integers(-2000, 2000, (90, 120)).astype(np.int16)
    facts = [
        Photometric(signed=True),
        Photometric(signed=True, interpretation="MONOCHROME1", padding=(-2000, -1500)),
        Photometric(signed=True, window=(40.0, 400.0), voi_function="SIGMOID", rescale_slope=0.5),
    ]
    for photometric in facts:
        feeds, _ = session("open_clip")[1].of_stored(stored, photometric)
        assert feeds["codes"].min() >= 0
        assert off_by("open_clip", feeds, to_grey(stored, photometric)).max() <= 2e-3


def test_what_no_table_can_hold_is_refused() -> None:
    _, feeds = session("carzero")
    with pytest.raises(ImageError) as caught:
        feeds.of_stored(np.zeros((40, 40), np.int32), Photometric(bits_stored=32))
    assert caught.value.code == "image.depth"
    with pytest.raises(ImageError) as caught:
        feeds.of_stored(np.full((40, 40), 7, np.uint16), Photometric())
    assert caught.value.code == "image.constant"
    with pytest.raises(ImageError) as caught:
        feeds.of_grey(np.zeros((1, 4000), np.uint8))
    assert caught.value.code == "image.too-small"


def test_matrices_are_made_once_for_a_size() -> None:
    feeds = PrepareFeeds(RULES["carzero"][0])
    assert feeds.plan(60, 70) is feeds.plan(60, 70)
    assert feeds.plan(60, 70) is not feeds.plan(70, 60)


@pytest.mark.parametrize(
    "steps",
    [
        [ResizeLongerSide(size=320, interpolation="lanczos"), PadSquare(size=320), Squash(size=SIDE)],
        [CentreCrop(size=SIDE)],
        [PadSquare(size=4000), Squash(size=SIDE)],
    ],
)
def test_steps_that_one_resize_cannot_express_are_refused(steps: list[Step]) -> None:
    spec = rule(*steps)
    fault = prepare_fault(spec)
    assert fault is not None
    for make in (prepare_graph, PrepareFeeds):
        with pytest.raises(ValueError, match="no prepare graph"):
            make(spec)


def test_the_graph_is_the_same_bytes_every_time() -> None:
    assert prepare_graph(RULES["asg"][0]) == prepare_graph(RULES["asg"][0])


@pytest.mark.parametrize("target", ["8.6", "8.9"])
@pytest.mark.parametrize("name", ["carzero", "open_clip"])
@needs_rtx
def test_tensorrt_rtx_compiles_it(name: str, target: str) -> None:
    feeds, _ = session(name)[1].of_grey(np.zeros((300, 260), np.uint8) + np.arange(260, dtype=np.uint8))
    profile = Profile({tensor: (np.shape(values),) * 3 for tensor, values in feeds.items()})
    rtx = load_flavour("tensorrt_rtx")
    built = build_engine(prepare_graph(RULES[name][0]), [profile], Settings(), rtx, targets=[target])
    products = [layer.operands for layer in built.layers if layer.is_product]
    assert products == [("Float", "Float")] * (4 if name == "open_clip" else 2)
