"""Resize, crop and pad as open_clip does: every mode against Pillow and torchvision, pixel by pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from promptray.export.torchvision_guard import ensure_torchvision_imports
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
from promptray.runtime.errors import ImageError
from promptray.runtime.interpolation import interpolate
from promptray.runtime.limits import MAX_PIXELS
from promptray.runtime.preprocess import preprocess

ensure_torchvision_imports()
from torchvision import transforms  # noqa: E402
from torchvision.transforms import InterpolationMode  # noqa: E402

Picture = NDArray[np.uint8]
SIZE = 32
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
FILTERS = {"bicubic": InterpolationMode.BICUBIC, "bilinear": InterpolationMode.BILINEAR}


@pytest.fixture(autouse=True, scope="module")
def _columns_first() -> Iterator[None]:
    """Give open_clip the Pillow it was published with: from 13 on, rows come first where they shrink more."""
    resize = Image.Image.resize

    def columns_first(image: Image.Image, size: Any, *how: Any, **more: Any) -> Image.Image:
        return resize(resize(image, (size[0], image.height), *how, **more), size, *how, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.Image, "resize", columns_first)
        yield


def test_the_order_of_passes_is_no_matter_of_pillows_version() -> None:
    picture = noise(90, 20, colour=False)
    made = interpolate(picture, 30, 15, "bicubic")
    image = Image.fromarray(picture)
    for width, height in ((15, 90), (15, 30)):  # a single pass each
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(made, np.asarray(image))


def rule(mode: str, interpolation: Any = "bicubic", *, fill: int = 0, size: int = SIZE) -> Preprocessing:
    steps: dict[str, list[Step]] = {
        "shortest": [ResizeShorterSide(size=size, interpolation=interpolation), CentreCrop(size=size)],
        "longest": [
            ResizeLongerSide(size=size, interpolation=interpolation, rounding="nearest"),
            PadSquare(size=size, value=fill),
        ],
        "squash": [Squash(size=size, interpolation=interpolation)],
    }
    return Preprocessing(
        greyscale=Greyscale(), steps=steps[mode], normalise=Normalise(mean=list(MEAN), std=list(STD)),
        channels=3, height=size, width=size, colour="rgb",
    )  # fmt: skip


def open_clip(image: Image.Image, mode: str, interpolation: str, fill: int, size: int) -> Image.Image:
    """open_clip 3.3.0's evaluation transform up to the conversion, by its source."""
    filter_ = FILTERS[interpolation]
    steps: list[Callable[[Any], Any]]
    if mode == "shortest":
        steps = [transforms.Resize(size, interpolation=filter_), transforms.CenterCrop((size, size))]
    elif mode == "squash":
        steps = [transforms.Resize((size, size), interpolation=filter_)]
    else:
        ratio = max(image.height / size, image.width / size)
        height, width = round(image.height / ratio), round(image.width / ratio)
        left, top = (size - width) // 2, (size - height) // 2
        right, bottom = (size - width + 1) // 2, (size - height + 1) // 2
        steps = [
            transforms.Resize((height, width), interpolation=filter_),
            transforms.Pad((left, top, right, bottom), fill=fill),
        ]
    for step in steps:
        image = step(image)
    return image.convert("RGB")


def noise(rows: int, columns: int, colour: bool, seed: int = 0) -> Picture:
    """Coarse blocks with noise: edges for the filter, and values that reach 0 and 255."""
    generator = np.random.default_rng(seed)
    channels = (3,) if colour else ()
    coarse = generator.integers(0, 256, (rows // 4 + 1, columns // 4 + 1, *channels))
    blocks = coarse.repeat(4, axis=0).repeat(4, axis=1)[:rows, :columns]
    return np.clip(blocks + generator.integers(-20, 21, blocks.shape), 0, 255).astype(np.uint8)


def check(picture: Picture, mode: str, interpolation: str, fill: int = 0, size: int = SIZE) -> None:
    expected = open_clip(Image.fromarray(picture), mode, interpolation, fill, size)
    seen = preprocess(picture, rule(mode, interpolation, fill=fill, size=size))
    np.testing.assert_array_equal(seen.picture, np.asarray(expected))
    to_pixels = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    np.testing.assert_array_equal(seen.pixels[0], to_pixels(expected).numpy())


SHAPES = [(32, 32), (33, 32), (45, 64), (64, 45), (97, 31), (31, 97), (1, 32), (7, 5), (200, 33), (40, 201)]


@pytest.mark.parametrize("colour", [False, True], ids=["grey", "colour"])
@pytest.mark.parametrize("interpolation", FILTERS)
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_every_mode_is_open_clips(mode: str, interpolation: str, colour: bool) -> None:
    for rows, columns in SHAPES:
        check(noise(rows, columns, colour), mode, interpolation, fill=37)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(1, 150), columns=st.integers(1, 150), size=st.integers(1, 60), fill=st.integers(0, 255),
    mode=st.sampled_from(["shortest", "squash"]), colour=st.booleans(), seed=st.integers(0, 3),
)  # fmt: skip
def test_any_size_is_open_clips(
    rows: int, columns: int, size: int, fill: int, mode: str, colour: bool, seed: int
) -> None:
    check(noise(rows, columns, colour, seed), mode, "bicubic", fill, size)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.integers(1, 150), columns=st.integers(1, 150), size=st.integers(1, 60), fill=st.integers(0, 255),
    colour=st.booleans(),
)  # fmt: skip
def test_any_size_padded_is_open_clips_or_vanishes(
    rows: int, columns: int, size: int, fill: int, colour: bool
) -> None:
    picture = noise(rows, columns, colour)
    if round(min(rows, columns) / (max(rows, columns) / size)) == 0:
        with pytest.raises(ImageError) as refusal:
            preprocess(picture, rule("longest", size=size))
        assert refusal.value.code == "image.too-small"
    else:
        check(picture, "longest", "bicubic", fill, size)


def test_a_film_at_its_own_size() -> None:
    """Both half-way offsets of the crop, at the size of the published network."""
    for rows, columns in ((834, 600), (384, 640), (2022, 1736)):
        check(noise(rows, columns, False), "shortest", "bicubic", size=224)


@pytest.mark.parametrize("shape", [(1, 32768), (32768, 1)])
def test_an_absurd_aspect_is_refused_before_any_memory_is_taken(shape: tuple[int, int]) -> None:
    picture = np.zeros(shape, np.uint8)
    with pytest.raises(ImageError) as refusal:
        preprocess(picture, rule("shortest", size=224))
    assert refusal.value.code == "image.too-large"
    assert str(MAX_PIXELS) in str(refusal.value.expected)
    with pytest.raises(ImageError) as refusal:
        preprocess(picture, rule("longest", size=224))
    assert refusal.value.code == "image.too-small"


@pytest.mark.parametrize("interpolation", ["area", "bilinear", "bicubic"])
def test_channels_are_resized_one_by_one_and_the_picture_stays(interpolation: Any) -> None:
    picture = noise(50, 41, True)
    before = picture.copy()
    made = interpolate(picture[:, ::-1], 20, 33, interpolation)
    assert made.flags.c_contiguous
    assert made.shape == (20, 33, 3)
    for channel in range(3):
        alone = interpolate(np.ascontiguousarray(picture[:, ::-1, channel]), 20, 33, interpolation)
        np.testing.assert_array_equal(made[..., channel], alone)
    np.testing.assert_array_equal(picture, before)
    same = interpolate(picture, 50, 41, interpolation)
    np.testing.assert_array_equal(same, picture)
    assert not np.shares_memory(same, picture)


def test_a_network_of_greys_takes_no_colour() -> None:
    grey = Preprocessing(
        greyscale=Greyscale(), steps=[Squash(size=SIZE)], normalise=Normalise(mean=[0.5], std=[0.5]),
        channels=1, height=SIZE, width=SIZE,
    )  # fmt: skip
    with pytest.raises(ImageError) as refusal:
        preprocess(noise(40, 40, True), grey)
    assert refusal.value.code == "image.array"
