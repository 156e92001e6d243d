"""Preprocessing equals the published CARZero code: OpenCV, torch arithmetic, and the oracle it wrote."""

from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from promptray.runtime.bundle.image_rules import (
    CentreCrop,
    Greyscale,
    Normalise,
    PadSquare,
    Preprocessing,
    ResizeLongerSide,
)
from promptray.runtime.errors import BundleError, ImageError
from promptray.runtime.image_file import decode_png
from promptray.runtime.preprocess import normalise, preprocess

FIXTURE = Path(__file__).parents[1] / "data" / "carzero_tiny"
CARZERO = Preprocessing(
    greyscale=Greyscale(),
    steps=[ResizeLongerSide(size=256), PadSquare(size=256), CentreCrop(size=224)],
    normalise=Normalise(mean=[0.4978] * 3, std=[0.2449] * 3),
    channels=3,
    height=224,
    width=224,
)


def test_equals_the_oracle() -> None:
    images = np.load(FIXTURE / "oracle.npz")["images"]
    matched = []
    for path in sorted((FIXTURE / "images").glob("*.png")):
        pixels = preprocess(decode_png(path.read_bytes()), CARZERO).pixels
        equal = [number for number, image in enumerate(images) if np.array_equal(pixels[0], image)]
        assert len(equal) == 1, path.name
        matched += equal
    assert sorted(matched) == list(range(len(images)))


@pytest.mark.parametrize("seed", range(6))
def test_equals_opencv_and_the_arithmetic_of_torchvision(seed: int) -> None:
    generator = np.random.default_rng(seed)
    rows, columns = (int(side) for side in generator.integers(20, 700, 2))
    grey = generator.integers(0, 256, (rows, columns), dtype=np.uint8)
    factor = 256 / max(rows, columns)
    size = (256, int(rows * factor)) if columns > rows else (int(columns * factor), 256)
    resized = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    height, width = 256 - resized.shape[0], 256 - resized.shape[1]
    padded = np.pad(resized, ((height // 2, height - height // 2), (width // 2, width - width // 2)))
    torch = pytest.importorskip("torch", reason="the edge install has no torch, and this compares with it")
    cropped = torch.from_numpy(padded[16:240, 16:240].copy())
    tensor = cropped.to(torch.float32).div(255)  # torchvision's to_tensor, then its normalize
    tensor.sub_(torch.tensor(0.4978)).div_(torch.tensor(0.2449))
    seen = preprocess(grey, CARZERO)
    np.testing.assert_array_equal(seen.pixels, tensor.expand(1, 3, -1, -1).numpy())
    np.testing.assert_array_equal(normalise(seen.picture[None], CARZERO), seen.pixels)


def test_result_is_contiguous_and_apart_from_the_picture() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (256, 256), dtype=np.uint8)
    before = grey.copy()
    seen = preprocess(grey, CARZERO)
    assert seen.pixels.shape == (1, 3, 224, 224)
    assert seen.pixels.dtype == np.float32
    assert seen.pixels.flags.c_contiguous
    assert seen.picture.flags.c_contiguous
    assert not np.shares_memory(seen.picture, grey)
    np.testing.assert_array_equal(grey, before)


def test_every_channel_has_its_own_mean_and_std() -> None:
    grey = np.arange(224 * 224, dtype=np.uint8).reshape(1, 224, 224)
    facts = Normalise(mean=[0.1, 0.4978, 0.9], std=[0.5, 0.2449, 2.0])
    each = normalise(grey, msgspec.structs.replace(CARZERO, normalise=facts))
    np.testing.assert_array_equal(each[:, 1], normalise(grey, CARZERO)[:, 1])
    expected = (grey / np.float32(255) - np.float32(0.9)) / np.float32(2)
    np.testing.assert_array_equal(each[:, 2], expected)


@pytest.mark.parametrize(
    ("steps", "shape"),
    [
        ([ResizeLongerSide(size=256)], (300, 300)),
        ([PadSquare(size=224)], (300, 300)),
        ([CentreCrop(size=224)], (100, 300)),
    ],
)
def test_steps_that_do_not_fit_are_refused(steps: list[object], shape: tuple[int, int]) -> None:
    with pytest.raises(BundleError) as refusal:
        preprocess(np.zeros(shape, np.uint8), msgspec.structs.replace(CARZERO, steps=steps))
    assert refusal.value.code == "bundle.format"


def test_a_side_that_vanishes_is_refused() -> None:
    with pytest.raises(ImageError) as refusal:
        preprocess(np.zeros((1, 1000), np.uint8), CARZERO)
    assert refusal.value.code == "image.too-small"


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 3), np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_only_8_bit_grey_is_preprocessed(array: np.ndarray) -> None:
    with pytest.raises(ImageError) as refusal:
        preprocess(array, CARZERO)
    assert refusal.value.code == "image.array"
