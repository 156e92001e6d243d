"""PromptRay: verified bundles of medical image-text models, and scores from them.

>>> from promptray import Scorer
>>> with Scorer.open("chest.bundle") as scorer:                                  # doctest: +SKIP
...     print(scorer.score("image.dcm").scores["pneumonia"].logit)

The names below are imported when first used, so that ``import promptray`` costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptray.runtime.backends import GpuOptions
    from promptray.runtime.bundle import Bundle
    from promptray.runtime.dicom.photometric import Photometric
    from promptray.runtime.errors import (
        BuildError,
        BundleError,
        ImageError,
        PromptError,
        PromptRayError,
        ScoringError,
    )
    from promptray.runtime.exam_result import ExamResult
    from promptray.runtime.result import Refused, Result
    from promptray.runtime.scorer import Scorer
    from promptray.runtime.version import VERSION as __version__

__all__ = [
    "BuildError",
    "Bundle",
    "BundleError",
    "ExamResult",
    "GpuOptions",
    "ImageError",
    "Photometric",
    "PromptError",
    "PromptRayError",
    "Refused",
    "Result",
    "Scorer",
    "ScoringError",
    "__version__",
]

_ERRORS = ("BuildError", "BundleError", "ImageError", "PromptError", "PromptRayError", "ScoringError")
_HOMES: dict[str, tuple[str, str]] = {
    "Bundle": ("promptray.runtime.bundle", "Bundle"),
    "ExamResult": ("promptray.runtime.exam_result", "ExamResult"),
    "GpuOptions": ("promptray.runtime.backends", "GpuOptions"),
    "Photometric": ("promptray.runtime.dicom.photometric", "Photometric"),
    "Refused": ("promptray.runtime.result", "Refused"),
    "Result": ("promptray.runtime.result", "Result"),
    "Scorer": ("promptray.runtime.scorer", "Scorer"),
    "__version__": ("promptray.runtime.version", "VERSION"),
    **{name: ("promptray.runtime.errors", name) for name in _ERRORS},
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'promptray' has no attribute {name!r}")
    module, attribute = _HOMES[name]
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
