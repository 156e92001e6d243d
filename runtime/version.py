"""The installed version of PromptRay."""

from __future__ import annotations

import importlib.metadata

VERSION = importlib.metadata.version("promptray")
