"""Where MLCommons' load generator has a wheel: there the tests need it."""

from __future__ import annotations

import platform
import sys

import pytest

HERE = sys.platform == "linux" and platform.machine() == "x86_64"
needs_wheel = pytest.mark.skipif(not HERE, reason="mlcommons-loadgen has wheels for Linux on x86-64 only")
