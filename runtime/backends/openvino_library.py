"""OpenVINO's own package, imported without its telemetry.

``import openvino`` tells an analytics service of its maker about every import, and leaves an identifier in
the user's home, unless that user opted out before. A box that scores radiographs calls nobody: the package
that does it is hidden while OpenVINO is imported, which then takes the stub that it brings for this case.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from types import ModuleType

from promptray.runtime.errors import ScoringError

NAME = "openvino"
_TELEMETRY = "openvino_telemetry"


def load_library() -> ModuleType:
    """Import OpenVINO.

    Raises
    ------
    ScoringError
        ``backend.unavailable`` where it is not installed, or does not load.
    """
    with _hidden(_TELEMETRY):
        try:
            import openvino
        except Exception as error:  # a wheel for another system fails in many ways
            missing = isinstance(error, ModuleNotFoundError) and error.name == NAME
            raise ScoringError(
                "backend.unavailable",
                "OpenVINO is not installed" if missing else "OpenVINO is installed and cannot be imported",
                artefact=NAME,
                found=None if missing else type(error).__name__,
                cure="pip install 'promptray[openvino]'",
            ) from error
    return openvino


@contextlib.contextmanager
def _hidden(package: str) -> Iterator[None]:
    """Let every import of a package fail, unless the program that we are part of has imported it already."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[package]
