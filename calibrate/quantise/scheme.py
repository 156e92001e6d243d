"""Schemes of quantisation, as a recipe states them."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

Calibration = Literal["max", "entropy", "percentile", "mse"]
Tables = Literal["float32", "float16", "int8-rows"]
Text = Annotated[str, Meta(min_length=1)]


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="scheme"):
    """Base of all schemes: immutable, keyword-only, closed."""


class Int8(_Struct, frozen=True, tag="int8-qdq"):
    """Explicit Q/DQ around linear layers: int8 weights for each output channel, int8 activations.

    What ONNX Runtime, OpenVINO and TensorRT take alike. Residual sums, normalisation, softmax and activation
    functions stay high.
    """

    calibration: Calibration = "mse"
    smooth: Annotated[float, Meta(gt=0, lt=1)] | None = None
    """SmoothQuant's alpha: how much of the activations' outliers moves into the weights; None for none."""
    embeddings: Tables | None = None
    """How tables that tokens are looked up in are stored; by default ``int8-rows``, but ``float16`` beside a
    float16 rest: TensorRT takes int8 constants before a DequantizeLinear only, not before a Gather. Positions
    that are added to image patches are float16 unless this is float32."""
    rest: Literal["float32", "float16"] = "float32"
    """What everything else is typed as: float32 suits CPUs; float16 is for GPUs, where TensorRT then fuses
    attention."""
    keep: list[Text] = []
    """Layers, or groups of them, that stay high."""

    @property
    def tables(self) -> Tables:
        """How those tables are stored."""
        return self.embeddings or ("float16" if self.rest == "float16" else "int8-rows")


class Float8(_Struct, frozen=True, tag="fp8-qdq"):
    """The same with float8 E4M3: for GPUs that have it. Runs on a CPU to be checked, not to be fast."""

    smooth: Annotated[float, Meta(gt=0, lt=1)] | None = None
    embeddings: Tables = "float16"
    rest: Literal["float32", "float16"] = "float32"
    keep: list[Text] = []


class Float16(_Struct, frozen=True, tag="fp16"):
    """Every tensor typed float16, but those that leave its range on real inputs. Inputs, outputs: float32."""

    headroom: Annotated[float, Meta(ge=1)] = 4.0
    """How many times larger than seen a tensor may become on other images."""
    keep: list[Text] = []


class DynamicInt8(_Struct, frozen=True, tag="int8-dynamic"):
    """Int8 weights; inputs of MatMul are quantised at run time by their own range. For CPUs; needs no images.

    Other products, as convolutions, are float32 of int8 weights.
    """

    embeddings: Tables = "int8-rows"
    keep: list[Text] = []


class ConvolutionInt8(_Struct, frozen=True, tag="int8-convolutions"):
    """Int8 convolutions with 8 bits all the way between them, biases too.

    For convolutional networks (SqueezeNet, ResNet) in ONNX Runtime on CPUs, where `Int8`, which leaves sums
    and activation functions high, is slower than float32.
    """

    keep: list[Text] = []


class WeightOnly(_Struct, frozen=True, tag="weight-only"):
    """Weights in blocks of 4 or 8 bits, activations high. For ONNX Runtime on CPUs; needs no images.

    Weights of other products than MatMul are int8 with a scale for each channel.
    """

    bits: Literal[4, 8] = 8
    block: Literal[16, 32, 64, 128] = 32
    embeddings: Tables = "int8-rows"
    keep: list[Text] = []


Scheme = Int8 | Float8 | Float16 | DynamicInt8 | ConvolutionInt8 | WeightOnly
