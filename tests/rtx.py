"""Which tests need TensorRT-RTX, the real compiler that builds without a GPU."""

from __future__ import annotations

import importlib.util
import platform
import sys

import pytest

#: The extra `dev` installs it here, so on such a machine a test that needs it fails where it is absent.
_INSTALLED_BY_SETUP = sys.platform == "linux" and platform.machine() == "x86_64"

needs_rtx = pytest.mark.skipif(
    not _INSTALLED_BY_SETUP and importlib.util.find_spec("tensorrt_rtx_bindings") is None,
    reason="not run: TensorRT-RTX is not installed, and `make setup` installs it on Linux x86-64 alone",
)
