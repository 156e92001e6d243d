"""Banks stored in float16: what is read back, what is added, and what does not fit."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
import safetensors.numpy

from promptray.runtime.bank_file import pack, unpack
from promptray.runtime.bank_precision import rounded
from promptray.runtime.errors import BundleError, PromptError
from promptray.runtime.prompts import BankEntry, PromptBank
from tests.runtime.test_prompts import RULE, entry

LESS = msgspec.structs.replace(RULE, id="b" * 64, stored="float16")


def fitted(key: str, rows: int) -> BankEntry:
    made = entry(key, rows)
    return BankEntry(made.key, made.prompts, rounded(made.tensors, LESS, key))


def test_the_file_is_float16_but_for_the_row_bias_and_gives_the_entries_back() -> None:
    bank = PromptBank(LESS, [fitted("a", 6), fitted("b", 9)])
    content = pack(bank)
    stored = {name: tensor.dtype.name for name, tensor in safetensors.numpy.load(content).items()}
    assert stored == {"offsets": "int64", "query": "float16", "keys": "float16", "row_bias": "float32"}
    again = unpack(content, LESS, artefact="bank")
    for before, after in zip(bank, again, strict=True):
        assert before.fingerprint == after.fingerprint
    assert pack(again) == content


def test_numbers_change_by_half_a_step_at_most() -> None:
    made = entry("a", 6)
    kept = rounded(made.tensors, LESS, "a")
    for name, before in made.tensors.items():
        assert kept[name].dtype == np.float32
        assert (np.abs(kept[name] - before) <= 2.0**-11 * np.abs(before) + 2.0**-25).all()
    np.testing.assert_array_equal(kept["row_bias"], made.tensors["row_bias"])
    assert rounded(made.tensors, RULE, "a") == made.tensors


@pytest.mark.parametrize("value", [65520.0, -1e30])
def test_a_number_beyond_float16_is_refused(value: float) -> None:
    made = entry("a", 6)
    made.tensors["query"][1] = value
    with pytest.raises(PromptError) as refusal:
        rounded(made.tensors, LESS, "a")
    assert refusal.value.code == "prompt.invalid"
    assert refusal.value.artefact == "a: query"


def test_a_file_of_another_type_is_refused() -> None:
    """Of the right identity, but its numbers are not those that were gated."""
    full: Any = msgspec.structs.replace(RULE, id=LESS.id)
    with pytest.raises(BundleError) as refusal:
        unpack(pack(PromptBank(full, [entry("a", 6)])), LESS, artefact="bank")
    assert refusal.value.code == "bundle.format"
    with pytest.raises(BundleError) as refusal:
        unpack(pack(PromptBank(LESS, [fitted("a", 6)])), full, artefact="bank")
    assert refusal.value.code == "bundle.foreign-bank"
