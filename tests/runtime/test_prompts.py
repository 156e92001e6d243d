"""The bank as a value: buckets, padding, packing, identity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptray.runtime.bank_file import pack, unpack
from promptray.runtime.bundle.manifest import BankRule, TensorFacts
from promptray.runtime.errors import BundleError, PromptError
from promptray.runtime.prompts import BankEntry, PromptBank
from promptray.runtime.wording import Wording

RULE = BankRule(
    file="prompts.safetensors",
    id="a" * 64,
    identity={},
    tensors=[
        TensorFacts(name="query", dtype="float32", dims=["prompts", 3]),
        TensorFacts(name="keys", dtype="float32", dims=["prompts", 2, 2, "rows"]),
        TensorFacts(name="row_bias", dtype="float32", dims=["prompts", "rows"]),
    ],
    row_buckets=[4, 8, 99],
    row_bias="row_bias",
)


def entry(key: str, rows: int, seed: int = 0) -> BankEntry:
    random = np.random.default_rng(seed)
    tensors: dict[str, Any] = {
        "query": random.normal(size=3).astype(np.float32),
        "keys": random.normal(size=(2, 2, rows)).astype(np.float32),
        "row_bias": random.normal(size=rows).astype(np.float32),
    }
    wording = Wording(text=f"There is {key}.", cleaned=f"there is {key}", words=rows - 4, truncated=False)
    return BankEntry(key, (wording,), tensors)


def bank_of(rows: Sequence[int]) -> PromptBank:
    return PromptBank(RULE, [entry(f"f{n}", count, n) for n, count in enumerate(rows)])


@given(st.lists(st.integers(1, 99), max_size=20), st.none() | st.integers(1, 7))
def test_every_prompt_is_in_one_batch_at_its_own_place(rows: list[int], per_batch: int | None) -> None:
    bank = bank_of(rows)
    batches = bank.batches(prompts_per_batch=per_batch)
    positions = [int(position) for batch in batches for position in batch.positions]
    assert sorted(positions) == list(range(len(rows)))
    for batch in batches:
        size, padded_rows = batch.tensors["row_bias"].shape
        assert size == (per_batch or len(batch.positions))
        assert padded_rows in RULE.row_buckets
        for slot, position in enumerate(batch.positions):
            own = bank.entries[position].tensors
            count = own["row_bias"].shape[0]
            assert (batch.tensors["query"][slot] == own["query"]).all()
            assert (batch.tensors["keys"][slot, :, :, :count] == own["keys"]).all()
            assert (batch.tensors["keys"][slot, :, :, count:] == 0).all()
            assert (batch.tensors["row_bias"][slot, :count] == own["row_bias"]).all()
            assert (batch.tensors["row_bias"][slot, count:] == RULE.row_bias_padding).all()
        padding = batch.tensors["row_bias"][len(batch.positions) :]
        assert (padding == 0).all(), "a padding prompt that masks every row would make NaN"


def test_one_long_prompt_does_not_inflate_the_short_ones() -> None:
    widths = {batch.tensors["keys"].shape[-1] for batch in bank_of([3] * 50 + [97]).batches()}
    assert widths == {4, 99}


@given(st.lists(st.integers(1, 20), max_size=6))
def test_packing_is_lossless(rows: list[int]) -> None:
    bank = bank_of(rows)
    again = unpack(pack(bank), RULE, artefact="x")
    assert [item.facts() for item in again] == [item.facts() for item in bank]
    for before, after in zip(bank, again, strict=True):
        for name, tensor in before.tensors.items():
            assert (after.tensors[name] == tensor).all()


def test_a_bank_has_one_form_as_bytes() -> None:
    bank = bank_of([3, 5])
    assert len({pack(bank) for _ in range(16)}) == 1


def test_adding_and_removing_leaves_the_old_bank_alone() -> None:
    one = bank_of([3])
    two = one.with_entry(entry("new", 5))
    assert one.keys == ("f0",)
    assert two.keys == ("f0", "new")
    assert two.without("f0").keys == ("new",)
    with pytest.raises(PromptError, match=r"prompt\.exists"):
        two.with_entry(entry("new", 5))
    with pytest.raises(PromptError, match=r"prompt\.unknown"):
        two.without("absent")


def test_a_foreign_bank_is_refused() -> None:
    facts = {name: getattr(RULE, name) for name in RULE.__struct_fields__}
    other = BankRule(**{**facts, "id": "b" * 64})
    with pytest.raises(BundleError) as refusal:
        unpack(pack(PromptBank(other, [entry("f", 3)])), RULE, artefact="prompts.safetensors")
    assert refusal.value.code == "bundle.foreign-bank"
    assert "aaaaaaaaaaaa" in str(refusal.value)
    assert "bbbbbbbbbbbb" in str(refusal.value)
    assert refusal.value.cure


@pytest.mark.parametrize(
    "spoil",
    [
        lambda tensors: tensors.pop("keys"),
        lambda tensors: tensors.update(keys=tensors["keys"].astype(np.float64)),
        lambda tensors: tensors.update(keys=tensors["keys"][:1]),
        lambda tensors: tensors.update(query=tensors["query"] * np.nan),
        lambda tensors: tensors.update(query=np.zeros((3, 1), np.float32)),
        lambda tensors: tensors.update(keys=np.zeros((2, 2, 4), np.float32)),
        lambda tensors: tensors.update(
            keys=np.zeros((2, 2, 0), np.float32), row_bias=np.zeros(0, np.float32)
        ),
    ],
)
def test_tensors_that_do_not_fit_are_refused(spoil: Any) -> None:
    bad = entry("f", 3)
    spoil(bad.tensors)
    with pytest.raises(BundleError) as refusal:
        PromptBank(RULE, [bad])
    assert refusal.value.code == "bundle.foreign-bank"


@given(st.binary(max_size=300))
def test_random_bytes_are_no_bank(data: bytes) -> None:
    with pytest.raises(BundleError):
        unpack(data, RULE, artefact="x")


def test_a_truncated_or_altered_bank_is_no_bank() -> None:
    data = pack(bank_of([3, 5]))
    random = np.random.default_rng(1)
    for length in random.integers(0, len(data) - 1, 60):
        with pytest.raises(BundleError):
            unpack(data[:length], RULE, artefact="x")
