"""Network input of the host: taken as it is meant, or refused, by every backend of the processor alike."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptray.runtime.backends import HOST, OPENVINO
from promptray.runtime.bundle import Bundle
from promptray.runtime.scorer import Scorer
from tests.openvino_bundle import for_openvino
from tests.runtime.backends.test_tensorrt import error_of

PIXELS = np.random.default_rng(5).normal(size=(2, 3, 32, 32)).astype(np.float32)
SWAPPED = PIXELS.dtype.newbyteorder()


@pytest.fixture(params=[HOST, OPENVINO])
def scorer(miniature: Bundle, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Scorer]:
    bundle = for_openvino(miniature.path, tmp_path / "both.bundle")
    with Scorer.open(bundle.path, site=None, threads=1, backend=request.param) as opened:
        yield opened


def logits(scorer: Scorer, pixels: Any) -> np.ndarray:
    return scorer.submit_pixels(pixels).result().heads[0].logits


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda pixels: pixels.astype(SWAPPED), SWAPPED.str),  # its bytes are those of other numbers
        (lambda pixels: pixels.astype(np.float64), "float64"),
        (lambda pixels: (pixels > 0).astype(np.uint8), "uint8"),
        (lambda pixels: pixels[..., :31], "31"),
        (lambda pixels: pixels[:, :1], "1, 32, 32"),
        (lambda pixels: pixels[0], "[3, 32, 32]"),
        (lambda pixels: pixels[None], "3, 32, 32]"),
        (lambda pixels: pixels[:0], "[0, 3, 32, 32]"),
        (lambda pixels: pixels[0, 0, 0, 0, ...], "[]"),
    ],
)
@pytest.mark.parametrize("images", [1, 2])
def test_what_a_model_does_not_take_is_refused(
    scorer: Scorer, change: Callable[[np.ndarray], np.ndarray], found: str, images: int
) -> None:
    error = error_of(lambda: logits(scorer, change(PIXELS[:images])))
    assert error
    assert error.code == "score.input"
    assert found in str(error.found)
    assert error.expected == "float32 (images, 3, 32, 32)"


@pytest.mark.parametrize("images", [1, 2])
def test_an_array_that_is_not_contiguous_is_scored_as_it_reads(scorer: Scorer, images: int) -> None:
    expected = logits(scorer, PIXELS[:images])
    strewn = np.zeros((images, 3, 32, 64), np.float32)[..., ::2]
    strewn[...] = PIXELS[:images]
    for pixels in (strewn, np.asfortranarray(PIXELS[:images])):
        assert not pixels.flags.c_contiguous
        assert (logits(scorer, pixels) == expected).all()
