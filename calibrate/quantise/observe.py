"""Run a graph on real inputs and look at the tensors inside it, one input at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from promptray.calibrate.quantise.graph import Graph
from promptray.calibrate.quantise.session import FAULTS, open_session
from promptray.runtime.errors import BuildError

Array = NDArray[Any]
#: Inputs of a graph by name, one mapping for each run.
Feeds = Sequence[Mapping[str, Array]]


def feeds_sha256(feeds: Feeds) -> str:
    """Return a hash of names, types, shapes and bytes of all inputs, in their order."""
    digest = hashlib.sha256()
    for feed in feeds:
        for name in sorted(feed):
            array = np.ascontiguousarray(feed[name])
            digest.update(f"{name}:{array.dtype}:{array.shape};".encode())
            digest.update(array.tobytes())
    return digest.hexdigest()


def observe(graph: Graph, tensors: Sequence[str], feeds: Feeds) -> Iterator[tuple[str, Array]]:
    """Yield the value of each tensor for each run; nothing is kept, whatever the number of runs.

    The graph runs as it is written (no optimisation), so that every tensor named is really computed. Inputs
    that the graph does not take are left out, as a head takes what it needs of the image graph's outputs.

    Raises
    ------
    BuildError
        ``quantise.calibration`` without inputs, with other inputs than the graph takes, or when a tensor
        holds NaN or infinity.
    """
    if not feeds:
        raise BuildError(
            "quantise.calibration", "there is nothing to calibrate with", cure="give at least one image"
        )
    fed = {value.name for value in graph.model.graph.input}
    inside = [name for name in dict.fromkeys(tensors) if name not in fed]
    session = open_session(_with_outputs(graph, inside))
    for feed in feeds:
        taken = {name: values for name, values in feed.items() if name in fed}
        found = {name: taken[name] for name in tensors if name in taken}
        try:
            results = session.run(inside or None, taken)  # with nothing inside, to see that it runs
            found.update(zip(inside, results[: len(inside)], strict=True))
        except FAULTS as error:
            raise BuildError(
                "quantise.calibration",
                f"the graph does not take the inputs: {(str(error).splitlines() or [''])[0][:200]}",
                expected=", ".join(sorted(fed))[:200],
                found=", ".join(f"{name} {values.shape}" for name, values in sorted(feed.items()))[:200],
                cure="calibrate with inputs of the bundle this graph is from",
            ) from error
        for name, values in found.items():
            if values.dtype.kind == "f" and not np.isfinite(values).all():
                raise BuildError(
                    "quantise.calibration",
                    "a tensor holds NaN or infinity in the fp32 graph",
                    artefact=name,
                    cure="leave out the images on which the fp32 bundle gives no score",
                )
            yield name, values


def _with_outputs(graph: Graph, names: Sequence[str]) -> bytes:
    model = onnx.ModelProto()
    model.CopyFrom(graph.model)
    del model.graph.output[:]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    if not names:
        model.graph.output.extend(graph.model.graph.output)
    return bytes(model.SerializeToString())
