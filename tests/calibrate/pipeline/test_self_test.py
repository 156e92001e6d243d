"""A self-test that could not fail is refused before anything is gated."""

from __future__ import annotations

import msgspec
import numpy as np
import onnx
import pytest

from promptray import BuildError
from promptray.calibrate.pipeline import other_rounding
from promptray.calibrate.pipeline.self_test import require_spread
from promptray.runtime.answers import Answers
from promptray.runtime.bundle.manifest import Manifest
from promptray.runtime.gated_answers import LARGEST_SHARE, widest
from tests import bundle_factory as factory

MANIFEST = msgspec.convert(factory.document(), Manifest)
(HEAD,) = MANIFEST.heads


def answers(*spreads: float) -> Answers:
    """Golden scores of findings that deviate by so much over the images."""
    levels = np.where(np.arange(16) % 2, 1.0, -1.0)[:, None]
    return Answers((7 + levels * np.array(spreads)).astype(np.float32), None)


def test_findings_that_differ_over_the_golden_images_are_taken() -> None:
    require_spread(MANIFEST, HEAD, answers(1.0, 1e-3), "the original")


@pytest.mark.parametrize("spread", [0.0, 1e-5])
def test_a_finding_whose_golden_scores_are_alike_is_refused(spread: float) -> None:
    """A tolerance of a tenth of its spread would be 0, or less than float32's own noise."""
    with pytest.raises(BuildError, match="same score on every golden image") as refusal:
        require_spread(MANIFEST, HEAD, answers(1.0, spread), "the student")
    error = refusal.value
    assert error.code == "gate.failed"
    assert error.artefact == "head chest, golden scores of the student"
    assert str(error.found).startswith("finding 1 (")
    assert "finding 0" not in str(error.found)
    assert "key `golden`" in str(error.cure)


@pytest.mark.parametrize(
    ("original", "gated"), [((1.0, 0.2), (1.0, 0.3)), ((0.4, 5.0), (0.2, 5.0)), ((0.3, 0.2), (0.2, 0.3))]
)
def test_the_least_spread_of_any_finding_bounds_the_tolerance(
    original: tuple[float, ...], gated: tuple[float, ...]
) -> None:
    assert widest(answers(*original), answers(*gated)) == pytest.approx(0.2 * LARGEST_SHARE, rel=1e-4)


def test_float16_numbers_move_as_what_they_were_rounded_from() -> None:
    """By a whole step, and as rarely as a number within a millionth lies at the edge of one."""
    values = np.random.default_rng(0).normal(size=(400, 500)).astype(np.float16)
    graph = onnx.helper.make_graph([], "constants", [], [], [onnx.numpy_helper.from_array(values, "w")])
    content = onnx.helper.make_model(graph).SerializeToString()
    changed = other_rounding._changed(content, np.random.default_rng(1))
    (tensor,) = onnx.load_from_string(changed).graph.initializer
    found = onnx.numpy_helper.to_array(tensor)
    moved = found != values
    assert 0.0003 < moved.mean() < 0.003
    steps = np.abs(found.astype(float) - values)[moved] / np.spacing(np.abs(values[moved])).astype(float)
    assert set(steps) <= {0.5, 1.0}  # below a power of two a step is half as long
