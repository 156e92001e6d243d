"""Products of an activation with a weight, caught as torch computes them, and rounded as Q/DQ pairs round.

Caught are calls, not modules: a projection that is a slice of a larger weight, as in attention, is a product
of the graph like any other, and no module of torch's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

#: What is called -> the axis of its weight that is the output's channels, and the weight's dimensions.
_PRODUCTS: dict[Any, tuple[int, int]] = {
    F.linear: (0, 2),
    F.conv2d: (0, 4),
    torch.matmul: (1, 2),
    Tensor.matmul: (1, 2),
    Tensor.__matmul__: (1, 2),
}

#: Takes the number of a product in its pass, input, weight and channel axis; gives input and weight.
Change = Callable[[int, Tensor, Tensor, int], tuple[Tensor, Tensor]]


class Products(TorchFunctionMode):
    """While it is entered, every product goes through a function that may change what is multiplied.

    Parameters
    ----------
    change : callable

    Attributes
    ----------
    count : int
        Products so far. The same code gives them the same numbers in every pass.
    """

    def __init__(self, change: Change) -> None:
        super().__init__()
        self.count = 0
        self._change = change

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Call a function of torch."""
        axis, dims = _PRODUCTS.get(function, (0, 0))
        if dims and len(args) > 1 and args[1].ndim == dims:
            given, weight = self._change(self.count, args[0], args[1], axis)
            args = (given, weight, *args[2:])
            self.count += 1
        return function(*args, **(kwargs or {}))


class _Rounded(torch.autograd.Function):
    """Numbers on a grid. The gradient passes as if they were not rounded, where they are not clipped.

    Straight-through: Bengio et al., arXiv 1308.3432; in training under quantisation, Jacob et al., CVPR 2018,
    arXiv 1712.05877.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor, least: int, greatest: int) -> Tensor:
        steps = torch.round(values / scale)
        ctx.save_for_backward((steps >= least) & (steps <= greatest))
        return steps.clamp(least, greatest) * scale

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None, None


def rounded_input(values: Tensor, scale: float) -> Tensor:
    """Return values as QuantizeLinear and DequantizeLinear give them back: -128 to 127 steps."""
    found: Tensor = _Rounded.apply(values.float(), torch.tensor(scale, device=values.device), -128, 127)
    return found


def rounded_weight(weight: Tensor, axis: int) -> Tensor:
    """Return a weight as it is stored in int8, one scale for each index of `axis`: -127 to 127 steps."""
    others = [number for number in range(weight.ndim) if number != axis]
    magnitudes = weight.detach().abs().amax(dim=others, keepdim=True)
    found: Tensor = _Rounded.apply(weight.float(), int8_scale(magnitudes), -127, 127)
    return found


def int8_scale(magnitudes: Tensor) -> Tensor:
    """Return the scales of `promptray.calibrate.quantise.qdq.scale_of`, wherever the magnitudes are."""
    exact = magnitudes.double() / 127
    near = exact.to(torch.float16)
    next_up = (near.view(torch.int16) + 1).view(torch.float16)  # of numbers that are not negative
    up = torch.where(near.double() < exact, next_up, near)
    return torch.where(exact > 0, up, 1).float()
