"""How images are prepared for a model in open_clip's layout: as configured, or as the density study did."""

from __future__ import annotations

from collections.abc import Mapping

from promptray.export.families.density_study import study_preprocessing
from promptray.export.families.open_clip_folder import OpenClipConfig
from promptray.export.families.options import invalid_option
from promptray.runtime.bundle.image_rules import (
    CentreCrop,
    Greyscale,
    Normalise,
    PadSquare,
    Preprocessing,
    ResizeLongerSide,
    ResizeShorterSide,
    Squash,
    Step,
)

_STUDY = "density-study"
_RESIZES = ("shortest", "longest", "squash")


def preprocessing_of(config: OpenClipConfig, options: Mapping[str, object]) -> tuple[Preprocessing, str]:
    """Return the rule, and a note that names it.

    Raises
    ------
    BuildError
        ``recipe.invalid`` for options that are not known, or contradict each other.
    """
    kind = options.get("preprocessing")
    if kind is None:
        mode = options.get("resize", config.preprocess_cfg.resize_mode)
        if not (isinstance(mode, str) and mode in _RESIZES):
            raise invalid_option("resize", "this value cannot be used", " or ".join(_RESIZES), repr(mode))
        return _configured(config, mode), f"resize: {mode}"
    if kind != _STUDY:
        raise invalid_option("preprocessing", "this value cannot be used", _STUDY, repr(kind))
    if "resize" in options:
        raise invalid_option(
            "resize",
            f"preprocessing: {_STUDY} squashes the image itself",
            "no resize",
            repr(options["resize"]),
        )
    return study_preprocessing(config.model_cfg.vision_cfg.image_size), f"preprocessing: {_STUDY}"


def _configured(config: OpenClipConfig, resize: str) -> Preprocessing:
    rule, size = config.preprocess_cfg, config.model_cfg.vision_cfg.image_size
    steps: dict[str, list[Step]] = {
        "shortest": [
            ResizeShorterSide(size=size, interpolation=rule.interpolation),
            CentreCrop(size=size),
        ],
        "longest": [
            ResizeLongerSide(size=size, interpolation=rule.interpolation, rounding="nearest"),
            PadSquare(size=size, value=rule.fill_color),
        ],
        "squash": [Squash(size=size, interpolation=rule.interpolation)],
    }
    return Preprocessing(
        greyscale=Greyscale(),
        steps=steps[resize],
        normalise=Normalise(mean=list(rule.mean), std=list(rule.std)),
        channels=3,
        height=size,
        width=size,
        colour="rgb",
    )
