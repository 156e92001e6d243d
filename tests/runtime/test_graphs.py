"""Answers of another number than asked for are refused: stretched to fit they would look like scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from promptray.runtime.answers import Answers
from promptray.runtime.bound_heads import BoundHead
from promptray.runtime.errors import ScoringError
from promptray.runtime.prompts import BankBatch

FEATURES = {"image_vector": np.zeros((2, 4), np.float32)}


class Stub:
    """A graph that always gives the same outputs."""

    def __init__(self, **outputs: tuple[int, ...]) -> None:
        self.outputs = {name: np.ones(shape, np.float32) for name, shape in outputs.items()}

    def bind(self, resident: Mapping[str, Any]) -> Stub:
        return self

    def run(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return self.outputs


def bound(**outputs: tuple[int, ...]) -> BoundHead:
    """Three prompts in a batch of four."""
    batch = BankBatch(np.arange(3, dtype=np.intp), {"query": np.zeros((4, 8), np.float32)})
    return BoundHead.of(Stub(**outputs), [batch])


def test_padding_is_dropped() -> None:
    head = bound(logits=(2, 4), maps=(2, 4, 5, 6))
    logits, maps = head.run(FEATURES)
    assert head.prompts == 3
    assert logits.shape == (2, 3)
    assert maps is not None
    assert maps.shape == (2, 3, 5, 6)


@pytest.mark.parametrize("shape", [(2, 1), (1, 4), (2, 3), (2, 5), (2,), ()], ids=str)
@pytest.mark.parametrize("output", ["logits", "maps"])
def test_another_number_of_answers_is_refused(output: str, shape: tuple[int, ...]) -> None:
    shapes = {"logits": (2, 4), "maps": (2, 4, 5, 6), output: (*shape, *((5, 6) if output == "maps" else ()))}
    with pytest.raises(ScoringError) as refusal:
        bound(**shapes).run(FEATURES)
    assert refusal.value.code == "backend.failed"
    assert refusal.value.artefact == f"head graph, output {output}"
    assert refusal.value.expected == "first dimensions [2, 4]"


def test_golden_answers_are_not_stretched_to_fit() -> None:
    stored = Answers(np.ones((1, 3), np.float32), np.ones((1, 3, 2, 2), np.float32))
    assert stored.maps is not None
    assert stored.errors(stored.logits, stored.maps) == (0.0, 0.0)
    assert stored.errors(stored.logits[:, :1], stored.maps) == (np.inf, 0.0)
    assert stored.errors(stored.logits, stored.maps[..., :1, :1]) == (0.0, np.inf)
