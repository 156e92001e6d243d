"""Build promptray's own wheel from the working tree, without leaving anything in it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.edge_install.targets import Refused

ROOT = Path(__file__).resolve().parents[2]
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE")
FOLDERS = ("promptray", "runtime", "export", "calibrate")


def copy_sources(into: Path) -> Path:
    """Copy what the distribution is made of: setuptools would leave its own files among the sources."""
    into.mkdir(parents=True)
    for name in FILES:
        shutil.copy(ROOT / name, into / name)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, into / folder, ignore=shutil.ignore_patterns("__pycache__"))
    return into


def build(kind: str, source: Path, into: Path) -> Path:
    """Build the ``sdist`` or ``wheel`` of `source`, as pip does, without asking an index for setuptools.

    Raises
    ------
    Refused
        If setuptools fails, with the end of what it said.
    """
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(into)!r}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, text=True)
    if done.returncode:
        raise Refused(f"Building promptray's {kind} failed. setuptools says: {done.stderr.strip()[-1000:]}")
    return into / done.stdout.splitlines()[-1]


def own_wheel(into: Path) -> Path:
    """Build the wheel of the working tree into the folder `into` and return its path."""
    with tempfile.TemporaryDirectory() as folder:
        return build("wheel", copy_sources(Path(folder) / "source"), into.resolve())
