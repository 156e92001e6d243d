"""A copy of a cache that other tests may be filling meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path


def copy_cache(cache: Path, folder: Path, *left_out: str) -> Path:
    """Copy the finished stages but those of the patterns; one under way has a name with a dot."""
    return Path(shutil.copytree(cache, folder / "cache", ignore=shutil.ignore_patterns(".*", *left_out)))
