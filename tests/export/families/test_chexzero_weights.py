"""CheXzero checkpoints that are refused, with what is wrong named; and those that differ and are read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from promptray.export.build import build
from promptray.export.families.chexzero import FAMILY
from promptray.runtime.errors import BuildError
from tests.chexzero_tiny import CHECKPOINT, Sizes, random_state, write_folder, write_recipe

State = dict[str, Tensor]
NO_CLIP = "no tensor of this checkpoint belongs to a CLIP with a ViT"
SIZES = Sizes(width=64, depth=1, mlp=96, text_depth=1, text_mlp=96, merges=40, embed=16)
BLOCK = "transformer.resblocks.0"


def renamed(old: str, new: str) -> Callable[[State], State]:
    return lambda state: {new if key == old else key: value for key, value in state.items()}


def changed(key: str, change: Callable[[Tensor], Tensor]) -> Callable[[State], State]:
    return lambda state: {**state, key: change(state[key])}


def without(prefix: str) -> Callable[[State], State]:
    return lambda state: {key: value for key, value in state.items() if not key.startswith(prefix)}


REFUSED: dict[str, tuple[Callable[[State], Any], str]] = {
    "nothing": (lambda state: {}, "no tensor at the top level"),
    "tensors one level down": (lambda state: {"state_dict": state}, "no tensor at the top level"),
    "a ResNet": (without("visual.class_embedding"), NO_CLIP),
    "no image tower": (without("visual."), NO_CLIP),
    "no text tower": (without("transformer."), "do not describe a CLIP"),
    "a projection of another name": (
        renamed("text_projection", "text_projections"),
        "missing text_projection (nearest there: text_projections)",
    ),
    "a norm of another name": (
        renamed(f"{BLOCK}.ln_2.weight", f"{BLOCK}.ln_two.weight"),
        f"missing {BLOCK}.ln_2.weight (nearest there: {BLOCK}.ln_two.weight)",
    ),
    "a block without its bias": (
        without(f"visual.{BLOCK}.attn.in_proj_bias"), f"missing visual.{BLOCK}.attn.in_proj_bias"
    ),
    "a tensor too many": (
        lambda state: {**state, "logit_bias": torch.zeros(())}, "unexpected logit_bias"
    ),
    "layer scale": (
        lambda state: {**state, f"visual.{BLOCK}.ls_1.gamma": torch.ones(64)},
        f"unexpected visual.{BLOCK}.ls_1.gamma",
    ),
    "a table of another length": (
        changed("visual.positional_embedding", lambda table: table[:-1]), "49 positions are no square"
    ),
    "a narrower projection": (
        changed("visual.proj", lambda table: table[:-1]), "shape of visual.proj: expected (64, *)"
    ),
    "text and image of different spaces": (
        changed("text_projection", lambda table: table[:, :-1]), "different spaces"
    ),
    "no head of 64": (
        lambda state: random_state(Sizes(width=96, depth=1, merges=40), 1), "a width of 96 is no"
    ),
    "not a number": (
        changed("ln_final.weight", lambda norm: norm * torch.nan), "not finite: ln_final.weight"
    ),
    "whole numbers": (changed("ln_final.bias", lambda norm: norm.to(torch.int64)), "type of ln_final.bias"),
    "a vector for a matrix": (changed("visual.conv1.weight", torch.flatten), "do not describe"),
    "another vocabulary": (
        changed("token_embedding.weight", lambda table: table.repeat(2, 1)), "is not the checkpoint's"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_bad_checkpoint_is_refused_by_name(tmp_path: Path, case: str) -> None:
    spoil, message = REFUSED[case]
    path = write_folder(tmp_path, SIZES, spoil(random_state(SIZES, 1)))
    with pytest.raises(BuildError) as refusal:
        FAMILY.load(path, None, {})
    assert refusal.value.code in ("checkpoint.layout", "text-model.invalid")
    assert message in str(refusal.value)
    assert CHECKPOINT in str(refusal.value) or refusal.value.code == "text-model.invalid"


@pytest.mark.parametrize("kind", ["half", "with the scalars of OpenAI's file", "without its temperature"])
def test_what_changes_no_score_is_read(tmp_path: Path, kind: str) -> None:
    state = random_state(SIZES, 1)
    expected = FAMILY.load(write_folder(tmp_path / "plain", SIZES, state), None, {}).heads[0].identity
    if kind == "half":
        state = {key: value.half() for key, value in state.items()}
    elif kind == "without its temperature":
        del state["logit_scale"]
    else:
        state |= {key: torch.tensor(77) for key in ("input_resolution", "context_length", "vocab_size")}
    found = FAMILY.load(write_folder(tmp_path / "other", SIZES, state), None, {}).heads[0].identity
    assert (found == expected) == (kind != "half"), "rounded weights are other weights"


def test_identity_is_the_text_sides(tmp_path: Path) -> None:
    """A bank depends on the text weights and not on the image side's."""
    state = random_state(SIZES, 1)
    identity = FAMILY.load(write_folder(tmp_path / "a", SIZES, state), None, {}).heads[0].identity
    other_image = {**state, "visual.proj": state["visual.proj"] * 2}
    assert (
        FAMILY.load(write_folder(tmp_path / "b", SIZES, other_image), None, {}).heads[0].identity == identity
    )
    other_text = {**state, "ln_final.bias": state["ln_final.bias"] + 1}
    assert (
        FAMILY.load(write_folder(tmp_path / "c", SIZES, other_text), None, {}).heads[0].identity != identity
    )


BAD_RECIPES: dict[str, tuple[dict[str, Any], str]] = {
    "no negative": ({"findings": [{"key": "edema"}]}, "asks each finding against its negative"),
    "alternatives": (
        {"relation": "exclusive", "findings": [{"key": "a"}, {"key": "b"}]}, "one of pair, independent"
    ),
    "an option": ({"model_options": {"resize": "squash"}}, "expected no options"),
    "a folder without vocabulary": ({"text_model": "golden"}, "the vocabulary cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_RECIPES)
def test_a_recipe_that_cannot_be_built_is_refused(tmp_path: Path, case: str) -> None:
    changes, message = BAD_RECIPES[case]
    path = write_recipe(tmp_path, **changes)
    with pytest.raises(BuildError) as refusal:
        build(path, tmp_path / "out.bundle", cache=tmp_path / "cache")
    assert message in str(refusal.value)
    assert not (tmp_path / "out.bundle").exists()
