"""What TensorRT-RTX makes of the decoders whose heads are 192 wide, layer by layer.

    python -m benchmarks.rtx_layers            # writes benchmarks/results/rtx_layers.json

CARZero's fusion and ASG's tag decoder attend with four heads over a width of 768. Each is built at its
published size with random weights, for one GPU at a time, on this CPU: it says what RTX's compiler fuses and
in which types, not how fast that is, and not what another TensorRT does.
"""

from __future__ import annotations

import argparse
import re
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from benchmarks.full_size import write_asg, write_carzero
from benchmarks.timing import save
from promptray.calibrate.quantise import Float8, Float16, Int8, Quantised, Scheme, quantise
from promptray.export.families import family
from promptray.export.families.base import LoadedModel, Side
from promptray.export.onnx_graph import export_graph
from promptray.export.tensorrt import Built, Layer, Profile, build_engine, load_flavour
from promptray.runtime.engines.settings import Settings

RESULT = Path(__file__).parent / "results" / "rtx_layers.json"
#: Typed as engines are to be: all that is no product of a quantised weight is float16.
SCHEMES: dict[str, Scheme] = {
    "fp16": Float16(),
    "int8": Int8(rest="float16", calibration="max"),
    "fp8": Float8(rest="float16"),
}
#: Compute capabilities that each is built for: float8 needs 8.9.
TARGETS = {"fp16": ("8.6", "8.9"), "int8": ("8.6", "8.9"), "fp8": ("8.9",)}
#: Sizes of dynamic dimensions: least, tuned, most.
SIZES = {
    "batch": (1, 1, 8),
    "prompts": (1, 14, 256),
    "rows": (16, 16, 16),
    "tokens": (3, 16, 97),
    "words": (1, 14, 95),
}
_HIGH = "float32 beside the float16 rest: "


def feed_of(side: Side, seed: int = 0) -> dict[str, Any]:
    """Make inputs of the tuned sizes from random numbers."""
    random = np.random.default_rng(seed)
    feed: dict[str, Any] = {}
    for facts in side.inputs:
        shape = _sizes(facts.dims, 1)
        if facts.dtype == "int64":
            feed[facts.name] = random.integers(0, 90, shape)
        else:
            feed[facts.name] = random.standard_normal(shape).astype(np.float32)
    return feed


def profile_of(side: Side) -> Profile:
    """Return the shapes of :data:`SIZES`."""
    return Profile(
        {facts.name: tuple(_sizes(facts.dims, which) for which in range(3)) for facts in side.inputs}  # type: ignore[misc]
    )


def _sizes(dims: Iterable[int | str], which: int) -> tuple[int, ...]:
    return tuple(SIZES[dim][which] if isinstance(dim, str) else dim for dim in dims)


def typed(content: bytes, side: Side, scheme: str) -> Quantised:
    """Type a graph as one of :data:`SCHEMES`, its ranges from random inputs."""
    return quantise(content, SCHEMES[scheme], [feed_of(side)])


def build(content: bytes, side: Side, target: str) -> Built:
    """Build for one GPU."""
    flavour = load_flavour("tensorrt_rtx")
    return build_engine(content, [profile_of(side)], Settings(), flavour, targets=[target])


def asked_float32(made: Quantised, side: Side) -> set[str]:
    """Return the nodes that are float32 on purpose: kept for their range, casts of inputs and outputs."""
    notes = [note.removeprefix(_HIGH) for note in made.report.notes if note.startswith(_HIGH)]
    kept = {note.partition(": ")[0] for note in notes}
    if isinstance(made.report.scheme, Float16):
        kept |= set(made.report.kept)
    casts = {f"{facts.name}.float16.cast" for facts in side.inputs}
    return kept | casts | {f"{facts.name}.cast" for facts in side.outputs}


def unasked_float32(
    layers: Collection[Layer], asked: Collection[str], quantised: Collection[str]
) -> list[str]:
    """Return the float32 tensors between layers that nobody asked for.

    Four kinds are asked for: casts of the graph's inputs and outputs, which are float32 in every graph here;
    what the quantiser's report keeps high; mean and variance of a normalisation, which TensorRT computes in
    float32; and sums of a product of 8 bits, before their scale.

    Parameters
    ----------
    layers : collection of Layer
    asked : collection of str
        Nodes (see :func:`asked_float32`).
    quantised : collection of str
        Nodes (see :func:`quantised_products`).
    """
    readers: dict[str, list[Layer]] = {}
    for layer in layers:
        for each in layer.inputs:
            readers.setdefault(each.name, []).append(layer)
    found = []
    for layer in layers:
        for each in layer.outputs:
            if each.type != "Float" or (layer.is_product and set(layer.nodes) & set(quantised)):
                continue
            around = [layer, *readers.get(each.name, [])]
            nodes = {node for one in around for node in one.nodes}
            if not nodes & set(asked) and not _is_of_one_norm(around):
                found.append(f"{each.name} of {layer.name}")
        if layer.is_product and "Float" in layer.operands and not set(layer.nodes) & set(asked):
            found.append(f"{layer.name} multiplies float32")
    return found


def _is_of_one_norm(around: list[Layer]) -> bool:
    """Tell whether a tensor goes from one part of a normalisation to another."""
    norms = [{node for node in layer.nodes if re.search(r"layer_norm", node)} for layer in around]
    return len(around) > 1 and bool(set.intersection(*norms))


def quantised_products(content: bytes) -> dict[str, str]:
    """Return the nodes whose weight is stored in 8 bits, each with its operator."""
    nodes = onnx.load_from_string(content).graph.node
    restored = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    products = {"MatMul", "Gemm", "Conv"}
    return {
        node.name: node.op_type
        for node in nodes
        if node.op_type in products and set(node.input[1:2]) & restored
    }


def summary(layers: Collection[Layer]) -> dict[str, Any]:
    """Return what counts of a list of layers."""
    products = Counter(" x ".join(layer.operands) for layer in layers if layer.is_product)
    attention = Counter(layer.inputs[0].type for layer in layers if layer.is_attention)
    return {
        "layers": len(layers),
        "fused_attention": dict(sorted(attention.items())),
        "products": dict(sorted(products.items())),
    }


def load(folder: Path, facts: Mapping[str, Any], **options: object) -> LoadedModel:
    """Load what a function of `benchmarks.full_size` wrote."""
    text = folder / facts["text_model"] if "text_model" in facts else None
    given = {**facts.get("model_options", {}), **options}
    return family(facts["family"]).load(folder / facts["checkpoint"], text, given)


#: Decoder -> its attentions in the order of the graph's softmaxes.
DECODERS = {
    "carzero fusion": [
        f"layer {number}, {which}"
        for number in range(1, 5)
        for which in ("prompts over the image (map)", "image over the prompt")
    ],
    "asg tags": [
        f"layer {number}, {which}"
        for number in range(1, 5)
        for which in ("tags over each other", "tags over the image" + " (map)" * (number == 4))
    ],
}


def decoder_sides() -> dict[str, Side]:
    """Return both decoders at their published size, with random weights."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # The towers in front of a decoder do not change it, so they have few blocks here.
        carzero = load(folder, write_carzero(folder, depth=4))
        asg = load(folder, write_asg(folder, depth=2), heads=["tags"])
    return {"carzero fusion": carzero.heads[0].side, "asg tags": asg.heads[0].side}


def attentions(decoder: str, layers: Collection[Layer]) -> dict[str, str]:
    """Return for every attention of a decoder whether it is one kernel (fused) or several, and its type."""
    nodes = {node for layer in layers for node in layer.nodes if re.fullmatch(r"node_softmax(_\d+)?", node)}
    in_order = sorted(nodes, key=lambda node: int(node.removeprefix("node_softmax").lstrip("_") or 0))
    found = {}
    for title, node in zip(DECODERS[decoder], in_order, strict=True):
        parts = [each for each in layers if node in each.nodes]
        fused = len(parts) == 1 and parts[0].is_attention
        kind = parts[0].inputs[0].type
        found[title] = f"fused, {kind}" if fused else f"apart, {kind}"
    return found


def measure() -> dict[str, Any]:
    """Build every decoder in every type for every GPU; return what became of each."""
    found: dict[str, Any] = {"tensorrt_rtx": load_flavour("tensorrt_rtx").version, "decoders": {}}
    for decoder, side in decoder_sides().items():
        content = export_graph(side, decoder)
        for scheme, targets in TARGETS.items():
            made = typed(content, side, scheme)
            for target in targets:
                layers = build(made.content, side, target).layers
                found["decoders"].setdefault(decoder, {}).setdefault(scheme, {})[target] = {
                    "attentions": attentions(decoder, layers),
                    **summary(layers),
                }
    return found


def table(result: Mapping[str, Any]) -> str:
    """Return the rows of the table in ``docs/tensorrt.md``."""
    rows = ["| decoder | what | fp16 | int8 | fp8 |", "| --- | --- | --- | --- | --- |"]
    for decoder, schemes in result["decoders"].items():
        for title in DECODERS[decoder]:
            found = [
                {at: each["attentions"][title] for at, each in schemes[name].items()} for name in SCHEMES
            ]
            rows.append(f"| {decoder} | {title} | {' | '.join(map(_cell, found))} |")
        counts = [
            _cell({at: _counted(each["products"]) for at, each in schemes[name].items()}) for name in SCHEMES
        ]
        rows.append(f"| {decoder} | products | {' | '.join(counts)} |")
    return "\n".join(rows)


def _counted(products: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {types}" for types, count in products.items())


def _cell(by_target: Mapping[str, str]) -> str:
    """Say it once where it is the same for all GPUs."""
    if len(set(by_target.values())) == 1:
        return next(iter(by_target.values()))
    return "; ".join(f"{target}: {what}" for target, what in by_target.items())


def main() -> None:
    """Write the result file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    save(parser.parse_args().output, measure())


if __name__ == "__main__":
    main()
