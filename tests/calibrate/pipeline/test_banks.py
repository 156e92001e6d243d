"""A draft whose bank is stored in less: half the bytes, an identity of its own, never without a gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from promptray.calibrate.pipeline.banks import with_float16_banks
from promptray.calibrate.pipeline.recipe import BuildRecipe, check_sections, kind_of
from promptray.export.draft import Draft
from promptray.runtime.bank_file import pack
from promptray.runtime.bundle import Bundle, write_bundle
from promptray.runtime.errors import BuildError, BundleError
from promptray.runtime.graphs import own_bank
from promptray.runtime.prompts import BankEntry, PromptBank

IMAGES = {"images": "films", "source": "films"}


@pytest.fixture
def fp32(reference_bundle: Path) -> Draft:
    bundle = Bundle.open(reference_bundle)
    return Draft(bundle.manifest, {name: bundle.read(name) for name in bundle.manifest.files})


def test_it_is_half_the_bytes_and_names_itself(fp32: Draft) -> None:
    made = with_float16_banks(fp32)
    (before,), (after,) = fp32.manifest.heads, made.manifest.heads
    assert len(made.read(after.bank.file)) < 0.55 * len(fp32.read(before.bank.file))
    assert after.bank.identity == {**before.bank.identity, "stored": "float16"}
    assert after.bank.id != before.bank.id
    for one, other in zip(own_bank(fp32, before), own_bank(made, after), strict=True):
        for name, tensor in one.tensors.items():
            np.testing.assert_allclose(other.tensors[name], tensor, rtol=2**-11, atol=2**-24)


def test_no_bundle_holds_it_without_a_gate(fp32: Draft, tmp_path: Path) -> None:
    made = with_float16_banks(fp32)
    with pytest.raises(BundleError, match="passed their gates") as refusal:
        write_bundle(tmp_path / "made", made.manifest, made.files)
    assert refusal.value.code == "bundle.format"


def test_an_identity_that_does_not_say_it_is_refused(fp32: Draft, tmp_path: Path) -> None:
    (head,) = fp32.manifest.heads
    silent = msgspec.structs.replace(head, bank=msgspec.structs.replace(head.bank, stored="float16"))
    manifest = msgspec.structs.replace(fp32.manifest, heads=[silent])
    with pytest.raises(BundleError, match="identity says"):
        write_bundle(tmp_path / "made", manifest, fp32.files)


def test_numbers_beyond_float16_are_refused(fp32: Draft) -> None:
    (head,) = fp32.manifest.heads
    first, *others = own_bank(fp32, head)
    name = head.bank.tensors[0].name
    tensors = {**first.tensors, name: first.tensors[name] * np.float32(1e6)}
    wild = PromptBank(head.bank, [BankEntry(first.key, first.prompts, tensors), *others])
    with pytest.raises(BuildError) as refusal:
        with_float16_banks(Draft(fp32.manifest, {**fp32.files, head.bank.file: pack(wild)}))
    assert refusal.value.code == "quantise.bank"
    assert refusal.value.artefact == f"{first.key}: {name}"


def recipe(**sections: Any) -> BuildRecipe:
    content = {
        "recipe_version": 1, "name": "few", "family": "carzero", "checkpoint": "model.ckpt",
        "model": {"licence": "none", "intended_use": "tests", "training_data": "none"},
        "door": {"modalities": ["DX"]}, "findings": [{"key": "edema"}], **sections,
    }  # fmt: skip
    return msgspec.convert(content, BuildRecipe)


def test_a_bank_alone_is_held_to_the_limits_of_float16() -> None:
    asked = recipe(quantise={"bank": "float16"}, gate=IMAGES)
    check_sections(asked, "recipe.yaml", ["findings"], text=True)
    assert asked.changes
    assert kind_of(asked, "recipe.yaml") == "fp16"
    with_image = recipe(quantise={"bank": "float16", "image": {"scheme": "weight-only"}}, gate=IMAGES)
    check_sections(with_image, "recipe.yaml", ["findings"], text=True)
    assert kind_of(with_image, "recipe.yaml") == "int8"


@pytest.mark.parametrize(
    "quantise", [{}, {"bank": "float32"}, {"bank": "float16", "text": {"scheme": "int8-dynamic"}}]
)
def test_sections_that_would_be_gated_for_nothing_or_two_are_refused(quantise: dict[str, Any]) -> None:
    with pytest.raises(BuildError) as refusal:
        check_sections(recipe(quantise=quantise, gate=IMAGES), "recipe.yaml", ["findings"], text=True)
    assert refusal.value.code == "recipe.invalid"


def test_a_bank_without_a_gate_is_refused() -> None:
    with pytest.raises(BuildError, match="gate"):
        check_sections(recipe(quantise={"bank": "float16"}), "recipe.yaml", ["findings"], text=True)
