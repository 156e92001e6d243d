"""Make ``torchvision`` importable beside a CPU-only build of torch.

The published torchvision wheels link CUDA libraries that a CPU-only torch lacks. Their compiled operators
then do not load and ``import torchvision`` stops with ``operator torchvision::nms does not exist``; timm, and
even the BERT of transformers, fail with it. Declaring the two operators by name is enough for everything
PromptRay uses, because it never calls them.
"""

from __future__ import annotations

import importlib
import importlib.util

import torch

_MISSING_OPERATORS = ("nms", "qnms")

# torch forgets declared operators when their library object is collected, so it lives as long as the process.
_declared: torch.library.Library | None = None


def ensure_torchvision_imports() -> None:
    """Import torchvision, declaring its missing operators only if the import fails for want of them.

    Call this before importing timm or transformers. A healthy installation, and one without torchvision, are
    left untouched.

    Raises
    ------
    RuntimeError
        If torchvision cannot be imported for any other reason.
    """
    global _declared
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error) or _declared is not None:
            raise
        _declared = torch.library.Library("torchvision", "DEF")
        for name in _MISSING_OPERATORS:
            _declared.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        importlib.import_module("torchvision")
