"""How images are prepared for a ConvNeXt, which its weights do not tell: three published ways."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from promptray.export.families.convnext_checkpoint import ConvNeXtCheckpoint
from promptray.export.families.density_study import study_preprocessing
from promptray.export.families.options import invalid_option
from promptray.export.torchvision_guard import ensure_torchvision_imports
from promptray.runtime.bundle.image_rules import (
    CentreCrop,
    Greyscale,
    Normalise,
    Preprocessing,
    ResizeShorterSide,
    Squash,
    Step,
)

ensure_torchvision_imports()

from timm.models import PretrainedCfg, get_pretrained_cfg  # noqa: E402 - timm imports torchvision

#: Blocks of the third stage and width of the first -> shorter side before the crop of 224, of torchvision's
#: Tiny, Small, Base and Large (``ConvNeXt_*_Weights.IMAGENET1K_V1.transforms()``).
_SHORTER = {(9, 96): 236, (27, 96): 230, (27, 128): 232, (27, 192): 232}
_CROP = 224
_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_KINDS = ("squash", "imagenet", "timm")


def preprocessing_of(
    found: ConvNeXtCheckpoint, options: Mapping[str, object]
) -> tuple[Preprocessing, dict[str, object]]:
    """Return the rule, and the options that say it in full.

    Parameters
    ----------
    found : ConvNeXtCheckpoint
        An architecture of torchvision has its own resize.
    options : mapping
        ``preprocessing``, ``image_size``, ``resize`` and ``timm_name``.

    Raises
    ------
    BuildError
        ``recipe.invalid`` for what is left out and not known, or cannot be used.
    """
    kind = options.get("preprocessing")
    if kind not in _KINDS:
        raise invalid_option(
            "preprocessing",
            "how the model's images were prepared is not in its weights, so it must be said",
            ", ".join(_KINDS),
            "none" if kind is None else repr(kind),
        )
    if "resize" in options and kind != "imagenet":
        raise invalid_option("resize", f"preprocessing: {kind} says it", "no resize", repr(options["resize"]))
    facts = _facts_of_timm(options) if kind == "timm" else None
    side = _image_size(options, _CROP if facts is None else facts.input_size[-1])
    said: dict[str, object] = {"preprocessing": kind, "image_size": side}
    if facts is not None:
        return _as_timm(facts, side), said
    if kind == "squash":
        return study_preprocessing(side), said
    shorter = _shorter(found, options, side)
    steps: list[Step] = [ResizeShorterSide(size=shorter, interpolation="bilinear"), CentreCrop(size=side)]
    return _colour_rule(steps, side, _MEAN, _STD), {**said, "resize": shorter}


def _image_size(options: Mapping[str, object], usual: int) -> int:
    side = options.get("image_size", usual)
    if type(side) is not int or side < 32 or side % 32:
        message = "the network halves its input five times"
        raise invalid_option("image_size", message, "a multiple of 32", repr(side))
    return side


def _shorter(found: ConvNeXtCheckpoint, options: Mapping[str, object], side: int) -> int:
    """Return what the shorter side is resized to, before a square of `side` is cut out."""
    stages: Any = found.model.stages
    own = (len(stages[2].blocks), len(stages[0].blocks[0].norm.weight))
    known = _SHORTER.get(own) if found.from_torchvision and side == _CROP else None
    shorter = options.get("resize", known)
    if type(shorter) is not int or not side <= shorter <= 4 * side:
        raise invalid_option(
            "resize",
            f"the shorter side before the crop is known only of torchvision's four at {_CROP}",
            f"pixels, at least {side}; torchvision's Tiny has 236, Small 230, Base and Large 232",
            "none" if shorter is None else repr(shorter),
        )
    return shorter


def _facts_of_timm(options: Mapping[str, object]) -> PretrainedCfg:
    """Return what timm says of published weights, which their tag names: those of one architecture differ."""
    name = str(options.get("timm_name", "none"))
    try:
        facts = get_pretrained_cfg(name, allow_unregistered=False) if "." in name else None
    except RuntimeError:
        facts = None
    if facts is None:
        message = "preprocessing: timm is that of published weights, so the name must have their tag"
        raise invalid_option("timm_name", message, "such as convnext_tiny.fb_in22k_ft_in1k", name)
    found: PretrainedCfg = facts
    return found


def _as_timm(facts: PretrainedCfg, side: int) -> Preprocessing:
    """Return timm's transform for evaluation (``timm.data.transforms_imagenet_eval``)."""
    scaled = math.floor(side / facts.crop_pct)
    steps: list[Step]
    if facts.crop_mode == "squash":
        steps = [Squash(size=scaled, interpolation="bicubic")]
    else:
        steps = [ResizeShorterSide(size=scaled, interpolation="bicubic")]
    if scaled != side or facts.crop_mode != "squash":
        steps.append(CentreCrop(size=side))
    return _colour_rule(steps, side, list(facts.mean), list(facts.std))


def _colour_rule(steps: list[Step], side: int, mean: list[float], std: list[float]) -> Preprocessing:
    return Preprocessing(
        greyscale=Greyscale(),
        steps=steps,
        normalise=Normalise(mean=mean, std=std),
        channels=3,
        height=side,
        width=side,
        colour="rgb",
    )
