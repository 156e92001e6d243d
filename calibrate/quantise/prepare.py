"""From a graph, a scheme and real inputs to a quantised graph; ranges serve any choice of layers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches

from promptray.calibrate.quantise.embeddings import store_tables, store_weights
from promptray.calibrate.quantise.float16 import type_float16
from promptray.calibrate.quantise.graph import Graph, unreadable
from promptray.calibrate.quantise.histogram import Magnitudes
from promptray.calibrate.quantise.layers import Layer, linear_layers, low_layers
from promptray.calibrate.quantise.observe import Feeds, feeds_sha256, observe
from promptray.calibrate.quantise.on_cpu import (
    quantise_convolutions,
    quantise_dynamically,
    quantise_weights,
)
from promptray.calibrate.quantise.qdq import E4M3, INT8, place
from promptray.calibrate.quantise.report import LayerReport, Quantised, Report
from promptray.calibrate.quantise.scheme import (
    ConvolutionInt8,
    DynamicInt8,
    Float8,
    Float16,
    Int8,
    Scheme,
    WeightOnly,
)
from promptray.calibrate.quantise.session import LEVELS, open_session, versions
from promptray.calibrate.quantise.smooth import smooth
from promptray.calibrate.quantise.thresholds import threshold_of
from promptray.runtime.errors import BuildError

_QUANTISED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "ConvInteger"}


def quantise(content: bytes, scheme: Scheme, feeds: Feeds = ()) -> Quantised:
    """Quantise a graph.

    Parameters
    ----------
    content : bytes
        An image, head or text graph as the export stage writes it: float32, weights inside, opset 20.
    scheme : Scheme
    feeds : sequence of mapping
        Real inputs, one mapping of arrays for each run; ``DynamicInt8`` and ``WeightOnly`` need none.

    Returns
    -------
    Quantised
        The graph, with the same inputs and outputs, and the report. The same arguments give the same bytes.

    Raises
    ------
    BuildError
        ``quantise.graph``, ``quantise.calibration`` or ``quantise.keep``.
    """
    return Prepared(content, scheme, feeds).make()


class Prepared:
    """A graph with its ranges taken, to be quantised whole or in part.

    Parameters
    ----------
    content, scheme, feeds
        See :func:`quantise`.

    Attributes
    ----------
    layers : list of Layer
        What the scheme could quantise, in the order of the graph.
    groups : dict of str to int
        Blocks of layers with their multiplications for one input; of schemes other than ``Int8`` and
        ``Float8``, which look at no ranges here, with their weights.
    """

    def __init__(self, content: bytes, scheme: Scheme, feeds: Feeds = ()) -> None:
        graph = Graph(content)
        if traces := sorted(graph.operators & _QUANTISED):
            raise unreadable(ValueError(f"it is quantised already ({', '.join(traces)})"))
        self.scheme, self.feeds = scheme, feeds
        self._bytes_before = len(content)
        self._notes: list[str] = []
        self._seen: dict[str, Magnitudes] = {}
        self.layers, self._ineligible = _eligible(graph, scheme)
        high = [layer for layer in linear_layers(graph)[0] if layer.of_one_plane]
        self._storable = [*self.layers, *_left(graph, scheme), *high]
        require_known(scheme.keep, self._storable)  # before the long work
        if isinstance(scheme, Int8 | Float8 | ConvolutionInt8):
            if not isinstance(scheme, ConvolutionInt8) and scheme.smooth is not None:
                channels = {name: seen.channels for name, seen in _observe(graph, self.layers, feeds).items()}
                done, left = smooth(graph, self.layers, channels, scheme.smooth)
                self._notes.append(
                    f"smoothed the inputs of {done} products; {left} have no place for factors"
                )
                self.layers, _ = _eligible(graph, scheme)
            self._seen = _observe(graph, self.layers, feeds)
        self._content, self._weight_names = graph.to_bytes(), graph.weight_names
        self.groups: dict[str, int] = {}
        for layer in self.layers:
            self.groups[layer.group] = self.groups.get(layer.group, 0) + self._products(layer)

    def make(self, keep: Collection[str] = ()) -> Quantised:
        """Quantise every layer but those that the scheme's `keep` or this one names.

        Raises
        ------
        BuildError
            ``quantise.keep`` for a name that is neither a layer nor a group.
        """
        wanted = {*self.scheme.keep, *keep}
        require_known(wanted, self._storable)
        graph = Graph(self._content, self._weight_names)
        kept = dict(self._ineligible)
        layers = []
        for layer in _eligible(graph, self.scheme)[0]:
            if {layer.name, layer.group} & wanted:
                kept[layer.name] = "the scheme keeps it"
            elif self._seen and not self._seen[layer.activation].greatest:
                kept[layer.name] = "its input was zero in every run"
            else:
                layers.append(layer)
        notes = list(self._notes)
        content = self._apply(graph, layers, wanted, kept, notes)
        open_session(content)
        return Quantised(content, self._report(content, layers, kept, notes))

    def _apply(
        self, graph: Graph, layers: list[Layer], wanted: set[str], kept: dict[str, str], notes: list[str]
    ) -> bytes:
        scheme = self.scheme
        if isinstance(scheme, Float16):
            kept.update(type_float16(graph, self.feeds, headroom=scheme.headroom, keep=wanted))
            return graph.to_bytes()
        if isinstance(scheme, ConvolutionInt8):
            return quantise_convolutions(graph, layers, self.feeds)
        stored = scheme.tables if isinstance(scheme, Int8) else scheme.embeddings
        if tables := store_tables(graph, stored):
            listed = ", ".join(f"{name} ({kind})" for name, kind in tables.items())
            notes.append(f"tables in less: {listed}")
        if isinstance(scheme, DynamicInt8 | WeightOnly):
            left = [each for each in _left(graph, scheme) if not {each.name, each.group} & wanted]
            store_weights(graph, left)
            kept.update({each.name: "no MatMul: its weight is int8, its arithmetic float32" for each in left})
            if isinstance(scheme, WeightOnly):
                return quantise_weights(graph, layers, scheme)
            return quantise_dynamically(graph, layers)
        thresholds = {layer.activation: self._threshold(layer) for layer in layers}
        int8 = isinstance(scheme, Int8)
        place(graph, layers, thresholds, INT8 if int8 else E4M3, apart=int8 and scheme.rest == "float32")
        if scheme.rest == "float16":
            high = type_float16(graph, self.feeds, headroom=Float16().headroom)
            notes += [f"float32 beside the float16 rest: {name}: {reason}" for name, reason in high.items()]
        return graph.to_bytes()

    def _products(self, layer: Layer) -> int:
        return layer.products(self._seen[layer.activation].shape if self._seen else None)

    def _threshold(self, layer: Layer) -> float:
        rule = self.scheme.calibration if isinstance(self.scheme, Int8) else "max"
        return threshold_of(self._seen[layer.activation], rule)

    def _report(self, content: bytes, layers: list[Layer], kept: dict[str, str], notes: list[str]) -> Report:
        calibrated = not isinstance(self.scheme, DynamicInt8 | WeightOnly)
        # ONNX Runtime would fuse FP8 pairs into an operator whose own schema refuses FP8.
        runnable = ("none", "basic") if isinstance(self.scheme, Float8) else LEVELS
        return Report(
            scheme=self.scheme,
            tools=versions(),
            calibration_inputs=len(self.feeds) if calibrated else 0,
            calibration_sha256=feeds_sha256(self.feeds) if calibrated else None,
            quantised=[self._layer(layer) for layer in layers],
            kept=kept,
            notes=notes,
            bytes_before=self._bytes_before,
            bytes_after=len(content),
            optimisations=list(runnable),
        )

    def _layer(self, layer: Layer) -> LayerReport:
        threshold = clipped = None
        if self._seen:
            threshold, greatest = self._threshold(layer), self._seen[layer.activation].greatest
            clipped = greatest if greatest > threshold else None
        return LayerReport(
            name=layer.name,
            group=layer.group,
            weights=layer.weight.size,
            products=self._products(layer),
            threshold=threshold,
            clipped=clipped,
        )


def require_known(names: Collection[str], layers: Sequence[Layer]) -> None:
    """Refuse names to keep that are neither a layer nor a group.

    Raises
    ------
    BuildError
        ``quantise.keep``.
    """
    known = list(dict.fromkeys(name for layer in layers for name in (layer.group, layer.name)))
    if unknown := sorted({*names} - {*known}):
        near = get_close_matches(unknown[0], known, n=5, cutoff=0.4)
        groups = dict.fromkeys(layer.group for layer in layers)
        raise BuildError(
            "quantise.keep",
            "the scheme keeps a layer that the graph does not have, or that it never quantises",
            artefact=unknown[0],
            expected=f"a group of layers, or a layer: {', '.join(near or groups)}"[:300],
            cure="`promptray sensitivity RECIPE` lists the groups of every graph",
        )


def _eligible(graph: Graph, scheme: Scheme) -> tuple[list[Layer], dict[str, str]]:
    if isinstance(scheme, Float16):
        return linear_layers(graph)[0], {}
    layers, kept = low_layers(graph)
    if isinstance(scheme, Int8 | Float8):
        return layers, kept
    operator = "Conv" if isinstance(scheme, ConvolutionInt8) else "MatMul"
    kept |= {layer.name: f"no {operator}" for layer in layers if layer.node.op_type != operator}
    return [layer for layer in layers if layer.node.op_type == operator], kept


def _left(graph: Graph, scheme: Scheme) -> list[Layer]:
    """Return the layers whose products a scheme leaves in float32 and whose weights it stores as int8."""
    if not isinstance(scheme, DynamicInt8 | WeightOnly):
        return []
    return [layer for layer in low_layers(graph)[0] if layer.node.op_type != "MatMul"]


def _observe(graph: Graph, layers: list[Layer], feeds: Feeds) -> dict[str, Magnitudes]:
    found = {layer.activation: Magnitudes() for layer in layers}
    for name, values in observe(graph, list(found), feeds):
        found[name].add(values)
    return found
