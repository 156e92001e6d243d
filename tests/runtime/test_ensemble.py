"""Several wordings become one entry of the bank: the mean of unit vectors, or the difference of two."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptray.runtime.bundle.manifest import BankRule, TensorFacts
from promptray.runtime.ensemble import combine
from promptray.runtime.errors import PromptError
from promptray.runtime.wording import require_wordings


def rule(ensemble: Any = "mean-unit") -> BankRule:
    facts = TensorFacts(name="finding_vector", dtype="float32", dims=["prompts", 4])
    return BankRule(
        file="prompts.safetensors", id="0" * 64, identity={}, tensors=[facts], row_buckets=[],
        ensemble=ensemble,
    )  # fmt: skip


def rows(*vectors: Any) -> list[dict[str, Any]]:
    """Outputs of a text graph: vectors of unit length."""
    return [
        {"finding_vector": (np.array(each) / np.linalg.norm(each)).astype(np.float32)} for each in vectors
    ]


def entry(positive: list[Any], negative: list[Any] | None = None) -> Any:
    return combine(rule(), "key", rows(*positive), rows(*(negative or [])))["finding_vector"]


def test_one_wording_keeps_its_vector() -> None:
    found = entry([(1, 2, 3, 4)])
    assert found.dtype == np.float32
    assert np.abs(found - rows((1, 2, 3, 4))[0]["finding_vector"]).max() <= 1e-7


def test_several_are_averaged_at_unit_length() -> None:
    """Each at unit length first: a long vector has no more say than a short one."""
    found = entry([(10, 0, 0, 0), (0, 1, 0, 0)])
    assert np.allclose(found, [0.5**0.5, 0.5**0.5, 0, 0], atol=1e-7)


def test_a_pair_is_a_difference_of_unit_vectors() -> None:
    found = entry([(1, 0, 0, 0), (0, 1, 0, 0)], [(0, 0, 2, 0)])
    assert np.allclose(found, [0.5**0.5, 0.5**0.5, -1, 0], atol=1e-7)


#: All in one corner, so that none cancels another.
vectors = st.lists(st.floats(0.01, 1), min_size=4, max_size=4)


@given(st.lists(vectors, min_size=1, max_size=5))
def test_order_changes_nothing_beyond_rounding(wordings: list[list[float]]) -> None:
    forward, backward = entry(wordings), entry(wordings[::-1])
    assert np.abs(forward - backward).max() <= 1e-6
    assert np.linalg.norm(forward) == pytest.approx(1, abs=1e-6)


def test_wordings_that_cancel_are_refused() -> None:
    with pytest.raises(PromptError, match="cancel each other") as refusal:
        entry([(1, 0, 0, 0), (-1, 0, 0, 0)])
    assert (refusal.value.code, refusal.value.artefact) == ("prompt.invalid", "key")


def test_a_negative_that_is_the_same_to_the_model_is_refused() -> None:
    """Its logit would be 0 for every image."""
    with pytest.raises(PromptError, match="cannot tell the prompt from its negative"):
        entry([(1, 0, 0, 0)], [(1, 0, 0, 0), (1, 0, 0, 0)])


def test_without_an_ensemble_the_rows_stay_as_they_are() -> None:
    only = {"keys": np.ones((2, 3), np.float32)}
    assert combine(rule("none"), "key", [only], []) == only


WORDINGS: dict[str, tuple[str, str, list[str], list[str], str | None]] = {
    "one": ("none", "independent", ["a"], [], None),
    "an ensemble": ("mean-unit", "exclusive", ["a", "b"], [], None),
    "a pair": ("mean-unit", "pair", ["a", "b"], ["c"], None),
    "overlapping sides": ("mean-unit", "pair", ["a", "b"], ["a"], None),
    "nothing": ("mean-unit", "independent", [], [], "needs a prompt"),
    "several where one is scored": ("none", "independent", ["a", "b"], [], "one wording"),
    "a negative where one is scored": ("none", "independent", ["a"], ["b"], "only a head of pairs"),
    "a negative without pairs": ("mean-unit", "exclusive", ["a"], ["b"], "only a head of pairs"),
    "pairs without a negative": ("mean-unit", "pair", ["a"], [], "against its negative"),
    "the same on both sides": ("mean-unit", "pair", ["a", "b"], ["b", "a"], "are the same"),
}


@pytest.mark.parametrize("case", WORDINGS)
def test_which_wordings_a_head_takes(case: str) -> None:
    ensemble, relation, prompts, negative, named = WORDINGS[case]
    if named is None:
        require_wordings(ensemble, relation, "key", prompts, negative)
        return
    with pytest.raises(PromptError, match=named) as refusal:
        require_wordings(ensemble, relation, "key", prompts, negative)
    assert (refusal.value.code, refusal.value.artefact) == ("prompt.invalid", "key")
