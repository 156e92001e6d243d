"""Learning while quantised: the student's products are rounded as the Q/DQ graph will round them.

What is simulated is taken from what will be deployed. The image side is exported, and the layers that the
scheme quantises in that graph are looked up among the products that torch computes; ranges are taken by the
code that calibrates graphs, from images that are learned from. After training the weights are float32 as
ever, and the stage that quantises takes them: where ranges agree, so do the results, which a test holds.

NVIDIA ModelOpt's QAT is not used: it places quantisers by the kinds of modules, where its own exporter puts
them, and its int8 graphs come from `torch.onnx.export(dynamo=False)` alone. It would train for other places,
scales and ranges than those of `promptray.calibrate.quantise`, and need some twenty more packages.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from promptray.calibrate.distil.quantised_products import Change, Products, rounded_input, rounded_weight
from promptray.calibrate.quantise.graph import Graph
from promptray.calibrate.quantise.histogram import Magnitudes
from promptray.calibrate.quantise.layers import Layer, linear_layers, low_layers
from promptray.calibrate.quantise.prepare import require_known
from promptray.calibrate.quantise.qdq import INT8, input_scales
from promptray.calibrate.quantise.scheme import Int8
from promptray.calibrate.quantise.thresholds import threshold_of
from promptray.export.families.base import Side
from promptray.export.onnx_graph import export_graph
from promptray.runtime.errors import BuildError

_SAME = 1e-3  # of a row of length 1, and of factors


@dataclass(frozen=True, eq=False)
class _Weight:
    """What a weight is known again by: its shape, channels first, its first row of length 1, all lengths."""

    shape: tuple[int, ...]
    row: NDArray[np.float32]
    lengths: NDArray[np.float32]

    @classmethod
    def of(cls, weight: NDArray[np.float32], axis: int) -> _Weight:
        rows = np.moveaxis(weight, axis, 0)
        lengths = np.linalg.norm(rows.reshape(len(rows), -1), axis=1)
        return cls(rows.shape, rows[0].ravel() / lengths[0], lengths)

    def is_same(self, other: _Weight) -> bool:
        """Whether weights are equal but for a factor of each channel: BatchNorm is folded into weights."""
        return self.shape == other.shape and abs(abs(float(self.row @ other.row)) - 1) < _SAME


class Simulation:
    """The quantisation of an image side, in torch.

    Parameters
    ----------
    side : Side
        As it will be exported. Not changed.
    scheme : Int8
        Its layers to keep, and its rule for ranges. ``smooth`` is refused; float16, of ``rest`` and of
        positions, is simulated as float32.

    Raises
    ------
    BuildError
        ``distil.simulate`` where a product of the graph is not one of torch's; ``quantise.keep``.

    Attributes
    ----------
    scheme : Int8
    """

    def __init__(self, side: Side, scheme: Int8) -> None:
        if scheme.smooth is not None:
            raise _refused(
                "smooth moves factors into weights after training, so their rounding is not known before",
                "quantise.image.smooth",
                "leave it out: training does what it is for",
            )
        self.scheme = scheme
        drawn = _drawn(side)
        calls = _calls(drawn)
        self._count = len(calls)
        graph = Graph(export_graph(drawn, "image"))
        require_known(scheme.keep, linear_layers(graph)[0])
        found = _found(low_layers(graph)[0], calls)
        kept = set(scheme.keep)
        self._layers = {
            number: layer for number, (layer, _) in found.items() if not {layer.name, layer.group} & kept
        }
        self._norms = {
            number: _norm(side.module, drawn.module, factors, layer.name)
            for number, (layer, factors) in found.items()
            if not np.allclose(factors, 1, atol=_SAME)
        }
        self._scales: dict[str, float] = {}

    @property
    def names(self) -> list[str]:
        """Names of the layers that are simulated, in the order of the graph."""
        return [layer.name for layer in self._layers.values()]

    def take_ranges(self, forward: Callable[[Tensor], object], pixels: Iterable[Tensor]) -> None:
        """Take the ranges of the inputs of all layers, as calibration does, of the side unquantised.

        Parameters
        ----------
        forward : callable
            A pass of the side in evaluation mode, for pixels (1, C, H, W).
        pixels : iterable of Tensor
        """
        seen = {layer.activation: Magnitudes() for layer in self._layers.values()}
        first = {layer.activation: number for number, layer in reversed(self._layers.items())}

        def watch(number: int, given: Tensor, weight: Tensor, axis: int) -> tuple[Tensor, Tensor]:
            layer = self._layers.get(number)
            if layer is not None and first[layer.activation] == number:
                seen[layer.activation].add(given.float().cpu().numpy())
            return given, weight

        with torch.no_grad():
            for each in pixels:
                with self._products(watch):
                    forward(each)
        rule = self.scheme.calibration
        thresholds = {name: threshold_of(each, rule) for name, each in seen.items()}
        ranged = [layer for layer in self._layers.values() if thresholds[layer.activation]]
        apart = self.scheme.rest == "float32"
        scales = input_scales(ranged, thresholds, INT8, apart=apart)
        self._scales = {name: float(scale) for name, scale in scales.items()}

    @contextmanager
    def active(self) -> Iterator[None]:
        """Quantise one pass of the side, with gradients."""
        with self._products(self._round):
            yield

    @contextmanager
    def _products(self, change: Change) -> Iterator[None]:
        with Products(change) as products:
            yield
        if products.count != self._count:
            what = f"a pass has {products.count} products, and that of the exported side {self._count}"
            raise _unknown(what, "the student")

    def _round(self, number: int, given: Tensor, weight: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        layer = self._layers.get(number)
        if layer is None or layer.node.name not in self._scales:  # an input that was always zero stays high
            return given, weight
        scale = self._scales[layer.node.name]
        if number not in self._norms:
            return rounded_input(given, scale), rounded_weight(weight, axis)
        folded = _factors(self._norms[number]).to(weight.device)
        folded = torch.where(folded == 0, 1, folded).unflatten(0, (-1, *[1] * (weight.ndim - 1)))
        return rounded_input(given, scale), rounded_weight(weight * folded, axis) / folded


def _drawn(side: Side) -> Side:
    """Return a copy with weights drawn anew: a product is known again by its weight, and none are equal.

    Of weights as they begin, some are: the exporter would keep one of them, under one name, and others are 0.
    """
    module = copy.deepcopy(side.module).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for each in module.parameters():
        each.copy_(torch.rand(each.shape, generator=generator) - 0.5)
    return Side(module, side.inputs, side.outputs)


def _calls(side: Side) -> list[_Weight]:
    """Return the products of one pass, in their order."""
    seen: list[_Weight] = []

    def note(number: int, given: Tensor, weight: Tensor, axis: int) -> tuple[Tensor, Tensor]:
        seen.append(_Weight.of(weight.numpy(), axis))
        return given, weight

    shape = [each if isinstance(each, int) else 2 for each in side.inputs[0].dims]
    with torch.no_grad(), Products(note):
        side.module(torch.zeros(*shape))
    return seen


def _found(layers: Sequence[Layer], calls: Sequence[_Weight]) -> dict[int, tuple[Layer, NDArray[np.float32]]]:
    """Return, by the number of a product, its layer and the size of the factors folded into each channel.

    Raises
    ------
    BuildError
        ``distil.simulate``.
    """
    wanted = [_Weight.of(layer.weight, layer.channel_axis) for layer in layers]
    found = {}
    for number, (layer, each) in enumerate(zip(layers, wanted, strict=True)):
        alike = [place for place, call in enumerate(calls) if call.is_same(each)]
        same = [place for place, other in enumerate(wanted) if other.is_same(each)]
        if len(alike) != len(same):
            raise _unknown(
                f"the graph has {len(same)} products with the weight of a layer, and torch {len(alike)}",
                layer.name,
            )
        place = alike[same.index(number)]  # of products with one weight, in their order
        found[place] = layer, each.lengths / calls[place].lengths
    return found


def _norm(module: nn.Module, drawn: nn.Module, factors: NDArray[np.float32], layer: str) -> nn.BatchNorm2d:
    """Return the BatchNorm that was folded into a weight, by its factors in the drawn copy."""
    for name, each in drawn.named_modules():
        if not isinstance(each, nn.BatchNorm2d) or not (each.affine and each.track_running_stats):
            continue
        if len(factors) == each.num_features and np.allclose(_factors(each).abs(), factors, rtol=_SAME):
            norm = module.get_submodule(name)
            assert isinstance(norm, nn.BatchNorm2d)  # noqa: S101 - the copy's is one
            return norm
    raise _unknown("the graph has a layer's weight times something that is no BatchNorm", layer)


def _factors(norm: nn.BatchNorm2d) -> Tensor:
    """Return what BatchNorm multiplies each channel by, outside of training."""
    assert norm.running_var is not None  # noqa: S101 - else it could not be folded
    return norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)


def _unknown(what: str, layer: str) -> BuildError:
    cure = "keep the layer high (quantise.image.keep), or distil without simulate"
    return _refused(what, layer, cure)


def _refused(what: str, artefact: str, cure: str) -> BuildError:
    return BuildError("distil.simulate", what, artefact=artefact, cure=cure)
