"""A draft that stands for another machine of the class: its float32 sums end otherwise in their last bits."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from promptray.export.draft import Draft

#: Relative size of the change: float32 sums of a thousand numbers in another order differ by about this.
RELATIVE = 1e-6


def with_other_rounding(draft: Draft, random: np.random.Generator) -> Draft:
    """Change every float32 weight, bias and scale of the scoring graphs by less than :data:`RELATIVE`.

    Where a value is next to a rounding step of int8 or float16 this moves it by a whole step, as another
    processor's sums would. Pixels would not do: the first quantiser absorbs what is done to them.
    """
    files = dict(draft.files)
    for graph in draft.manifest.graphs:
        if graph.role != "text":
            files[graph.file] = _changed(draft.read(graph.file), random)
    return Draft(draft.manifest, files)


def _changed(content: bytes, random: np.random.Generator) -> bytes:
    model = onnx.load_from_string(content)
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        values = numpy_helper.to_array(tensor)
        factors = 1 + RELATIVE * random.uniform(-1, 1, values.shape)
        tensor.CopyFrom(numpy_helper.from_array((values * factors).astype(np.float32), tensor.name))
    return bytes(model.SerializeToString(deterministic=True))
