"""The section ``tensorrt`` of a recipe: what engines will be compiled from, and the sizes they are for."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import msgspec

from promptray.calibrate.pipeline.images_recipe import ImagesRecipe
from promptray.calibrate.quantise.scheme import Float8, Float16, Int8, Scheme
from promptray.export.draft import Draft
from promptray.export.tensorrt import load_flavour
from promptray.export.tensorrt.flavour import capabilities
from promptray.runtime.bundle.engines import Precision
from promptray.runtime.bundle.fields import Text
from promptray.runtime.bundle.manifest import Manifest
from promptray.runtime.bundle.validate_engines import FP8_TARGET, RTX_FP32_TARGET, capability
from promptray.runtime.bundle.validate_preprocessing import prepare_fault
from promptray.runtime.engines.settings import (
    CAPABILITY,
    MOST_IMAGES,
    MOST_PROMPTS,
    Range,
    Settings,
    Size,
)
from promptray.runtime.errors import BuildError
from promptray.runtime.golden_prepare import largest_golden
from promptray.runtime.limits import MAX_SIDE

#: Below 1 TiB, which is the most that engines are built with.
_WORKSPACE = "[1-9][0-9]{0,5} MiB|[1-9][0-9]{0,2} GiB"
#: The flavour that plans are built with ahead of time.
FLAVOUR: Literal["tensorrt_rtx"] = "tensorrt_rtx"
_UNITS = {"MiB": 1 << 20, "GiB": 1 << 30}
#: Precisions that are worth their error only where they are faster than fp16.
LOW: tuple[Precision, ...] = ("int8-qdq", "fp8-qdq")


class _Struct(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of the section's structures: unknown keys are refused."""


class TypedRecipe(_Struct, frozen=True, kw_only=True):
    """The precision of a graph, with what stays high in it."""

    precision: Precision
    keep: list[Text] = []
    """Layers, or groups of them, that stay high (`promptray sensitivity` lists them)."""


class PrecisionsRecipe(_Struct, frozen=True, kw_only=True):
    """A precision for the image graph, and one for every head."""

    image: Precision | TypedRecipe = "fp16"
    head: Precision | TypedRecipe = "fp16"


class SizesRecipe(_Struct, frozen=True, kw_only=True):
    """The size that an engine is tuned for, and the greatest it takes; the least is 1."""

    tuned: Size
    most: Size

    @property
    def range(self) -> Range:
        """The same, as the bundle says it."""
        return Range(tuned=self.tuned, most=self.most)


class TensorRTRecipe(_Struct, frozen=True, kw_only=True):
    """What engines are compiled from; docs/recipe.md has an example."""

    precision: Precision | PrecisionsRecipe = "fp16"
    images: SizesRecipe = SizesRecipe(tuned=1, most=8)
    prompts: SizesRecipe | None = None
    workspace: Text = "2 GiB"
    opset_17: bool = False
    """Also variants that TensorRT 8.6 reads."""
    ahead_of_time: list[Text] = []
    """Compute capabilities that TensorRT-RTX plans are built for and carried."""
    prepare: bool = False
    """Also a graph that takes stored values to pixels on the device."""
    sides: SizesRecipe = SizesRecipe(tuned=2500, most=4608)
    """Rows, and columns, of what it takes."""
    calibration: ImagesRecipe | None = None
    """The images that ranges are taken from."""

    @property
    def settings(self) -> Settings:
        """What the bundle says engines are built with."""
        number, _, unit = self.workspace.partition(" ")
        return Settings(
            images=self.images.range,
            prompts=self.prompts.range if self.prompts else None,
            sides=self.sides.range,
            workspace_bytes=int(number) * _UNITS[unit],
        )

    def asked(self, role: str) -> TypedRecipe:
        """Return the precision of a graph with what it keeps high."""
        of = self.precision
        both = of if isinstance(of, PrecisionsRecipe) else PrecisionsRecipe(image=of, head=of)
        own = both.image if role == "image" else both.head
        return own if isinstance(own, TypedRecipe) else TypedRecipe(precision=own)

    def schemes(self, role: str) -> dict[Precision, Scheme | None]:
        """Return how each source of a graph is made, by its precision; None: it is the fp32 graph itself.

        What is of 8 bits has an fp16 source beside it: on the device, the two are compared in time.
        """
        asked = self.asked(role)
        found: dict[Precision, Scheme | None] = {}
        if asked.precision in LOW:
            found["fp16"] = Float16()
        found[asked.precision] = _SCHEMES[asked.precision](asked.keep)
        return found


_SCHEMES: dict[Precision, Callable[[list[str]], Scheme | None]] = {
    "fp32": lambda keep: None,
    "fp16": lambda keep: Float16(keep=keep),
    "int8-qdq": lambda keep: Int8(rest="float16", keep=keep),
    "fp8-qdq": lambda keep: Float8(rest="float16", keep=keep),
}


@dataclass(frozen=True)
class _Rule:
    """What must hold of the section, which key breaks it, and what would do."""

    holds: bool
    key: str
    what: str
    expected: str


def check_tensorrt(asked: TensorRTRecipe, artefact: str, fp32: Draft) -> None:
    """Refuse a section that does not fit itself or the model, before the long work.

    Parameters
    ----------
    asked : TensorRTRecipe
    artefact : str
        Base name of the recipe.
    fp32 : Draft
        The bundle as it is without the section.

    Raises
    ------
    BuildError
        ``recipe.invalid``, naming the key; ``engine.unavailable`` where plans are asked for and
        TensorRT-RTX is not installed.
    """
    for rule in [*_rules(asked, fp32.manifest), *(_rules_of_prepare(asked, fp32) if asked.prepare else [])]:
        if not rule.holds:
            raise _invalid(artefact, rule.key, rule.what, rule.expected)
    known = built_for() if asked.ahead_of_time else []
    if foreign := [each for each in asked.ahead_of_time if each not in known]:
        what = "TensorRT-RTX builds no plans for GPUs of this compute capability: they build on the device"
        raise _invalid(artefact, "ahead_of_time", what, f"one of {', '.join(known)}", ", ".join(foreign))


def built_for() -> list[str]:
    """Return the compute capabilities that the TensorRT-RTX which is here builds plans for."""
    return list(capabilities(load_flavour(FLAVOUR).load()))


def _invalid(artefact: str, key: str, what: str, expected: str, found: str | None = None) -> BuildError:
    return BuildError(
        "recipe.invalid",
        what,
        artefact=f"{artefact}, key tensorrt.{key}",
        expected=expected,
        found=found,
        cure="docs/recipe.md lists every key with an example",
    )


def _rules(asked: TensorRTRecipe, manifest: Manifest) -> list[_Rule]:
    both = [asked.asked("image"), asked.asked("head")]
    kinds = {each.precision for each in both}
    known = all(re.fullmatch(CAPABILITY, each) for each in asked.ahead_of_time)
    targets = [capability(each) for each in asked.ahead_of_time] if known else []
    free, sizes = manifest.free_head, asked.prompts
    own = len(manifest.findings_of(free.name)) if free else 0
    return [
        _Rule(
            len(kinds & {*LOW}) < 2,
            "precision",
            "a set of engines has one precision of 8 bits, beside which others are higher",
            "int8-qdq or fp8-qdq, not both",
        ),
        _Rule(
            not any(each.keep and each.precision == "fp32" for each in both),
            "precision",
            "a graph that stays fp32 keeps everything high",
            "keep with fp16, int8-qdq or fp8-qdq",
        ),
        _Rule(
            kinds == {"fp32"} or asked.calibration is not None,
            "calibration",
            "ranges are taken from images, and the section names none",
            "a section 'calibration' in it, with 'images' and 'source'",
        ),
        _Rule(
            kinds != {"fp32"} or asked.calibration is None,
            "calibration",
            "fp32 graphs take no ranges from images",
            "no section 'calibration' beside precision: fp32",
        ),
        _Rule(
            not (asked.opset_17 and "fp8-qdq" in kinds),
            "opset_17",
            "opset 17, which is all that TensorRT 8.6 reads, has no float8",
            "false beside fp8-qdq",
        ),
        _Rule(
            re.fullmatch(_WORKSPACE, asked.workspace) is not None,
            "workspace",
            "the limit of scratch memory is no whole number of MiB or GiB",
            "for example 2 GiB, and below 1000 GiB",
        ),
        *_size_rules("images", asked.images, MOST_IMAGES),
        *_size_rules("sides", asked.sides, MAX_SIDE),
        *_size_rules("prompts", sizes, MOST_PROMPTS),
        _Rule(
            sizes is None or free is not None,
            "prompts",
            "every head takes its whole fixed set, so there is no size to choose",
            "no key 'prompts' for this model",
        ),
        _Rule(
            sizes is None or own <= sizes.most,
            "prompts",
            f"the recipe has {own} findings, and one call takes fewer",
            f"most of at least {own}",
        ),
        _Rule(
            known,
            "ahead_of_time",
            "what engines are built for is no compute capability of a GPU",
            'a list such as ["8.6", "8.9"], in quotes',
        ),
        _Rule(
            len(set(targets)) == len(targets),
            "ahead_of_time",
            "a compute capability is written twice",
            "each once",
        ),
        _Rule(
            "fp8-qdq" not in kinds or not targets or max(targets) >= FP8_TARGET,
            "ahead_of_time",
            "none of these compute capabilities has float8",
            '"8.9" or later among them',
        ),
        _Rule(
            "fp32" not in kinds or not targets or min(targets) >= RTX_FP32_TARGET,
            "ahead_of_time",
            "TensorRT-RTX has no float32 products for a compute capability below 8.0",
            'no graph of precision fp32, or "8.0" and later',
        ),
    ]


def _rules_of_prepare(asked: TensorRTRecipe, fp32: Draft) -> list[_Rule]:
    """Its engine is gated on the golden images, so it must take them."""
    fault = prepare_fault(fp32.manifest.preprocessing)
    largest = 0 if fault else largest_golden(fp32)
    on_cpu = "false: they are prepared on the CPU"
    return [
        _Rule(not fault, "prepare", f"images of this model cannot be prepared by a graph: {fault}", on_cpu),
        _Rule(
            largest > 0,
            "prepare",
            "no golden image is in grey, and an engine that prepares images is gated on these",
            f"a golden image in grey; or {on_cpu}",
        ),
        _Rule(
            largest <= asked.sides.most,
            "sides",
            f"golden images have up to {largest} rows or columns, and the engine that is gated on them takes "
            "fewer",
            f"most of at least {largest}",
        ),
    ]


def _size_rules(key: str, sizes: SizesRecipe | None, most: int) -> list[_Rule]:
    if sizes is None:
        return []
    return [
        _Rule(sizes.range.rises, key, "tuned is beyond most", "tuned <= most"),
        _Rule(sizes.most <= most, key, "engines for so many are none that a device runs", f"most <= {most}"),
    ]


def targets_of(precision: Precision, targets: list[str]) -> list[str]:
    """Return the compute capabilities that plans of a precision can be built for."""
    least = {"fp8-qdq": FP8_TARGET, "fp32": RTX_FP32_TARGET}.get(precision, (0, 0))
    return [each for each in targets if capability(each) >= least]
