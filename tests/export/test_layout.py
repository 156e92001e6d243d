"""Weights fit the module, or every one that does not is named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from promptray.export.layout import check_tied, described, fit_state_dict, sizes_of
from promptray.runtime.errors import BuildError

State = dict[str, Tensor]


def module() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))


def fit(state: State, *, optional: str = r"^$", ignored: str = r"^$") -> nn.Module:
    fitted = module()
    fit_state_dict(fitted, state, artefact="weights.ckpt", optional=optional, ignored=ignored)
    return fitted


def changed(change: Callable[[State], object]) -> State:
    torch.manual_seed(0)
    state = {key: torch.randn_like(tensor) for key, tensor in module().state_dict().items()}
    change(state)
    return state


def test_weights_that_fit_are_loaded() -> None:
    state = changed(lambda state: None)
    fitted = fit(state).state_dict()
    assert all(torch.equal(fitted[key], tensor) for key, tensor in state.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_converted(dtype: torch.dtype) -> None:
    state = changed(lambda state: state.update({"0.bias": torch.ones(4, dtype=dtype)}))
    assert fit(state).state_dict()["0.bias"].dtype == torch.float32


SPOILT: dict[str, tuple[Callable[[State], object], str]] = {
    "missing": (lambda state: state.pop("1.weight"), "missing 1.weight"),
    "renamed": (
        lambda state: state.update({"2.weights": state.pop("2.weight")}),
        "missing 2.weight (nearest there: 2.weights)",
    ),
    "unexpected": (lambda state: state.update({"7.scale": torch.ones(1)}), "unexpected 7.scale"),
    "misshapen": (
        lambda state: state.update({"0.weight": torch.ones(4, 5)}),
        "shape of 0.weight: expected (4, 3), found (4, 5)",
    ),
    "transposed": (
        lambda state: state.update({"0.weight": torch.ones(3, 4)}),
        "shape of 0.weight: expected (4, 3), found (3, 4)",
    ),
    "NaN": (lambda state: state["1.bias"].fill_(torch.nan), "not finite: 1.bias"),
    "infinity": (lambda state: state["1.bias"][2].fill_(-torch.inf), "not finite: 1.bias"),
    "whole numbers": (
        lambda state: state.update({"0.bias": torch.ones(4, dtype=torch.int64)}),
        "type of 0.bias: expected torch.float32, found torch.int64",
    ),
    "complex": (
        lambda state: state.update({"0.bias": torch.ones(4, dtype=torch.complex64)}),
        "type of 0.bias",
    ),
    "a huge stranger": (
        lambda state: state.update({"7.scale": torch.ones(1).expand(1 << 50)}),
        "unexpected 7.scale",
    ),
}


@pytest.mark.parametrize("case", SPOILT)
def test_each_kind_of_misfit_is_named(case: str) -> None:
    change, named = SPOILT[case]
    with pytest.raises(BuildError) as refusal:
        fit(changed(change))
    assert refusal.value.code == "checkpoint.layout"
    assert refusal.value.artefact == "weights.ckpt"
    assert named in refusal.value.message


def test_a_misfit_of_every_kind_at_once_names_them_all() -> None:
    def spoil(state: State) -> None:
        state["2.weights"] = state.pop("2.weight")
        state["0.weight"] = torch.ones(4, 5)
        state["1.bias"].fill_(torch.nan)

    with pytest.raises(BuildError) as refusal:
        fit(changed(spoil))
    for named in ("missing 2.weight", "unexpected 2.weights", "shape of 0.weight", "not finite: 1.bias"):
        assert named in refusal.value.message
    assert refusal.value.expected == "6 tensors"
    assert refusal.value.found == "6 tensors, 1 missing, 1 unexpected"


def test_a_long_list_is_cut_and_counted() -> None:
    with pytest.raises(BuildError, match="and 12 more") as refusal:
        fit(changed(lambda state: state.update({f"x.{n}": torch.ones(1) for n in range(20)})))
    assert refusal.value.message.count("unexpected x.") == 8


def test_optional_weights_may_be_missing_and_ignored_ones_present() -> None:
    without = changed(lambda state: state.pop("1.bias"))
    assert torch.equal(fit(without, optional=r"^1\.bias$").state_dict()["1.bias"], torch.zeros(4))
    extra = changed(lambda state: state.update({"position_ids": torch.arange(3)}))
    assert "position_ids" not in fit(extra, ignored=r"position_ids$").state_dict()


def test_an_optional_weight_that_is_there_must_still_fit() -> None:
    with pytest.raises(BuildError, match=r"shape of 1\.bias"):
        fit(changed(lambda state: state.update({"1.bias": torch.ones(9)})), optional=r"^1\.bias$")


def test_sizes_that_are_not_known_yet_are_returned() -> None:
    state = {"table": torch.ones(7, 4), "kernel": torch.ones(4, 3, 2, 2), "scalar": torch.ones(())}
    assert sizes_of(state, "table", None, 4) == (7,)
    assert sizes_of(state, "kernel", 4, 3, None, None) == (2, 2)
    assert sizes_of(state, "scalar") == ()


@pytest.mark.parametrize(
    ("key", "shape", "said"),
    [
        ("table", (4, None), "shape of table: expected (4, *), found (7, 4)"),
        ("table", (None,), "shape of table: expected (*), found (7, 4)"),
        ("table", (), "shape of table: expected (), found (7, 4)"),
        ("empty", (None, 4), "shape of empty: expected (*, 4), found (0, 4)"),
        ("tables", (None, 4), "missing tables (nearest there: table)"),
    ],
)
def test_a_tensor_that_tells_no_sizes_is_named(key: str, shape: tuple[int | None, ...], said: str) -> None:
    state = {"table": torch.ones(7, 4), "empty": torch.ones(0, 4)}
    with pytest.raises(BuildError) as refusal, described("a network", "weights.ckpt", cure="get it again"):
        sizes_of(state, key, *shape)
    assert refusal.value.code == "checkpoint.layout"
    assert refusal.value.message == f"the tensors do not describe a network ({said})"
    assert (refusal.value.artefact, refusal.value.cure) == ("weights.ckpt", "get it again")


@pytest.mark.parametrize(
    ("twin", "said"),
    [
        (torch.tensor([1.0, 3.0]), "they differ"),
        (torch.ones(3), r"shape of b\.bias: expected \(2,\), found \(3,\)"),
        (torch.full((2,), torch.nan), r"not finite: b\.bias"),
    ],
)
def test_one_tensor_under_two_names_has_one_value(twin: Tensor, said: str) -> None:
    state = {"a.bias": torch.tensor([1.0, 2.0]), "b.bias": torch.tensor([1.0, 2.0])}
    check_tied(state, "a", "b", "weights.ckpt")
    with pytest.raises(BuildError, match=f"two different values for one tensor: {said}") as refusal:
        check_tied({**state, "b.bias": twin}, "a", "b", "weights.ckpt")
    assert refusal.value.code == "checkpoint.layout"
    assert refusal.value.expected == "a.bias equal to b.bias"
