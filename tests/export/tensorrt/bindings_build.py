"""Run the builder's own code on objects that have the names of the real bindings, and no others.

    python -m tests.export.tensorrt.bindings_build

What it builds is nothing. A name that a version does not have raises AttributeError.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any
from unittest.mock import MagicMock, create_autospec, patch

import numpy as np
import tensorrt_bindings as trt
from onnx import TensorProto

from promptray.export.tensorrt.flavour import Flavour
from promptray.export.tensorrt.messages import Refused, Request
from promptray.export.tensorrt.model import read_model
from promptray.export.tensorrt.network import Compiled, compile_network
from promptray.export.tensorrt.profiles import Profile
from promptray.export.tensorrt.progress import Phases
from tests.export.tensorrt.small import product, quantised

SHAPES = ((1, 3), (2, 3), (8, 3))


def of(kind: Any, **values: Any) -> Any:
    """Return an object with a class's names; its methods give these values."""
    made = create_autospec(kind, instance=True, spec_set=True)
    for name, value in values.items():
        if isinstance(getattr(made, name), MagicMock):
            getattr(made, name).return_value = value
    return made


def objects(*, parsed: bool, plan: bytes | None) -> tuple[Any, Any, Any]:
    """Return a builder, a parser and the builder's configuration."""
    network = create_autospec(trt.INetworkDefinition, instance=True)
    tensor = create_autospec(trt.ITensor, instance=True)
    tensor.name, tensor.shape = "pixels", (-1, 3)
    network.num_inputs, network.get_input.return_value = 1, tensor
    cache = of(trt.ITimingCache, serialize=b"measured")
    config = of(
        trt.IBuilderConfig,
        create_timing_cache=cache,
        get_timing_cache=cache,
        add_optimization_profile=0,
    )
    builder = of(
        trt.Builder,
        create_network=network,
        create_builder_config=config,
        create_optimization_profile=of(trt.IOptimizationProfile),
        build_serialized_network=plan,
    )
    fault = of(trt.ParserError, desc="no such operator", node_name="here", node_operator="Foo", node=7)
    parser = create_autospec(trt.OnnxParser, instance=True)
    parser.parse.return_value, parser.num_errors, parser.get_error.return_value = parsed, 1, fault
    return builder, parser, config


def build(
    *,
    parsed: bool = True,
    plan: bytes | None = b"plan",
    version: str = trt.__version__,
    types: Collection[str] = (),
) -> tuple[Compiled | Refused, Any, Any]:
    """Build once, as for a version; also return the builder and its configuration."""
    builder, parser, config = objects(parsed=parsed, plan=plan)
    request = Request(
        flavour="tensorrt",
        profiles=[Profile({"pixels": SHAPES})],
        targets=[],
        workspace_bytes=1 << 30,
        types=sorted(types),
        content_bytes=4,
        timing_cache_bytes=None,
    )
    flavour = Flavour("tensorrt", "tensorrt_bindings", version)
    with (
        patch.object(trt, "Builder", lambda log: builder),
        patch.object(trt, "OnnxParser", lambda *_: parser),
    ):
        made = compile_network(trt, flavour, request, b"onnx", None, Phases(lambda *_: None))
    return made, builder, config


def main() -> None:
    """Build, and be refused."""
    made, builder, config = build()
    assert isinstance(made, Compiled)
    assert (made.plan, made.timing_cache, made.layers) == (b"plan", b"measured", [])
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    builder.create_network.assert_called_once_with(typed)
    config.clear_flag.assert_called_once_with(trt.BuilderFlag.TF32)
    config.set_memory_pool_limit.assert_called_once_with(trt.MemoryPoolType.WORKSPACE, 1 << 30)
    strict = [(trt.BuilderFlag.STRICT_NANS,)] if hasattr(trt.BuilderFlag, "STRICT_NANS") else []
    assert bool(strict) is (not trt.__version__.startswith("10.3"))
    assert [call.args for call in config.set_flag.call_args_list] == strict
    config.set_preview_feature.assert_not_called()
    builder.create_optimization_profile.return_value.set_shape.assert_called_once_with("pixels", *SHAPES)
    assert isinstance(config.progress_monitor, trt.IProgressMonitor)
    refused, _, _ = build(parsed=False)
    assert isinstance(refused, Refused)
    assert (refused.artefact, refused.found) == ("node here, Foo", "no such operator")
    failed, _, _ = build(plan=None)
    assert isinstance(failed, Refused)
    if trt.__version__.startswith("10."):  # the last to have what 8.6 is asked
        made, builder, config = build(version="8.6.1")
        assert isinstance(made, Compiled)
        explicit = 1 << int(trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
        builder.create_network.assert_called_once_with(explicit)
        assert [call.args for call in config.set_flag.call_args_list] == strict
        config.set_preview_feature.assert_called_once_with(trt.PreviewFeature.PROFILE_SHARING_0806, True)
        config.set_tactic_sources.assert_called_once_with(0)
        half, low = trt.BuilderFlag.FP16, trt.BuilderFlag.INT8
        old = {"opset": 17, "ir": 8}
        for graph, expected in (
            (product(**old), []),
            (product(np.float16, **old), [half]),
            # Opset 17 has Q/DQ of float32 alone; that rest is meant for float16, too.
            (quantised(np.int8, TensorProto.INT8, **old), [half, low]),
        ):
            _, _, config = build(version="8.6.1", types=read_model(graph).types)
            assert [call.args for call in config.set_flag.call_args_list] == [
                *strict,
                *((each,) for each in expected),
            ]
        refused, _, _ = build(parsed=False, version="8.6.1")
        assert isinstance(refused, Refused)
        assert refused.artefact == "node number 7"
    print(trt.__version__)


if __name__ == "__main__":
    main()
