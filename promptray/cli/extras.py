"""Say which extra is missing before anything heavy is imported."""

from __future__ import annotations

import importlib.util

from promptray.runtime.errors import BuildError

_EXPORT = ("torch", "timm", "transformers", "onnx", "onnxscript", "yaml")
_NEEDS = {"export": _EXPORT, "calibrate": (*_EXPORT, "sklearn")}


def require_extra(name: str) -> None:
    """Refuse to go on without an extra's packages.

    Raises
    ------
    BuildError
        ``extra.missing`` with the install command.
    """
    missing = [module for module in _NEEDS[name] if importlib.util.find_spec(module) is None]
    if missing:
        raise BuildError(
            "extra.missing",
            "this command needs packages that the edge install leaves out",
            artefact=", ".join(missing),
            cure=f"pip install 'promptray[{name}]'",
        )
