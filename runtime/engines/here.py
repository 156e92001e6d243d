"""What of engines can be used on this machine: the library's version and the GPU, or why there is none."""

from __future__ import annotations

from promptray.runtime.backends.choice import library_here
from promptray.runtime.engines.facts import Device
from promptray.runtime.errors import PromptRayError


def here(backend: str) -> tuple[str, Device] | PromptRayError:
    """Return version and device of a backend of engines, or the error that says what is missing."""
    try:
        return library_here(backend)
    except PromptRayError as error:
        return error
