"""A draft that stands for another machine of the class: its float32 sums end otherwise in their last bits."""

from __future__ import annotations

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from promptray.export.draft import Draft

#: Relative size of the change: float32 sums of a thousand numbers in another order differ by about this.
RELATIVE = 1e-6


def with_other_rounding(draft: Draft, random: np.random.Generator) -> Draft:
    """Change every weight, bias and scale of the scoring graphs by less than :data:`RELATIVE`.

    Where a value is next to a rounding step of int8 or float16 this moves it by a whole step, as another
    processor's sums would. Pixels would not do: the first quantiser absorbs what is done to them.
    """
    files = dict(draft.files)
    for graph in draft.manifest.graphs:
        if graph.role != "text":
            files[graph.file] = _changed(draft.read(graph.file), random)
    return Draft(draft.manifest, files)


def _moved_before_rounding(
    values: NDArray[np.float16], moves: NDArray[np.float64], random: np.random.Generator
) -> NDArray[np.float16]:
    """Return float16 numbers as if what they were rounded from had moved: few change, and by a whole step."""
    steps = np.spacing(np.abs(values)).astype(np.float64)
    crossed = random.uniform(0, 1, values.shape) < np.abs(moves) / steps
    stepped = (values + np.sign(moves) * steps).astype(np.float16)
    return np.where(crossed & np.isfinite(stepped), stepped, values)


def _changed(content: bytes, random: np.random.Generator) -> bytes:
    model = onnx.load_from_string(content)
    for tensor in model.graph.initializer:
        if tensor.data_type not in (TensorProto.FLOAT, TensorProto.FLOAT16):
            continue
        values = numpy_helper.to_array(tensor)
        moves = values.astype(np.float64) * RELATIVE * random.uniform(-1, 1, values.shape)
        half = tensor.data_type == TensorProto.FLOAT16
        changed = _moved_before_rounding(values, moves, random) if half else values + moves
        tensor.CopyFrom(numpy_helper.from_array(changed.astype(values.dtype), tensor.name))
    return bytes(model.SerializeToString(deterministic=True))
