"""Say which extra is missing before anything heavy is imported."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence

from promptray.runtime.errors import BuildError

_EXPORT = ("torch", "timm", "transformers", "onnx", "onnxscript", "yaml")
_NEEDS = {"export": _EXPORT, "calibrate": (*_EXPORT, "sklearn"), "ray": ("ray", "pyarrow")}


def require_extra(name: str) -> None:
    """Refuse to go on without an extra's packages.

    Raises
    ------
    BuildError
        ``extra.missing`` with the install command.
    """
    _require(_NEEDS[name], f"pip install 'promptray[{name}]'")


def require_fitting() -> None:
    """Refuse to go on without scikit-learn, the only package beyond the edge install that fits curves.

    Raises
    ------
    BuildError
        ``extra.missing`` with the install command.
    """
    _require(("sklearn",), "pip install scikit-learn (it is part of 'promptray[calibrate]', too)")


def require_onnx() -> None:
    """Refuse to go on without onnx, the only package beyond the edge install that edits graphs.

    Raises
    ------
    BuildError
        ``extra.missing`` with the install command.
    """
    _require(("onnx",), "pip install onnx (it is part of 'promptray[export]', too)")


def _require(modules: Sequence[str], cure: str) -> None:
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise BuildError(
            "extra.missing",
            "this command needs packages that the edge install leaves out",
            artefact=", ".join(missing),
            cure=cure,
        )
