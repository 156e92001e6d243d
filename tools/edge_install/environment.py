"""An environment with the edge install and nothing else: made, weighed, and its licences read."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

from tools.check_licences import canonical, licence
from tools.edge_install.pip import pip
from tools.edge_install.targets import Refused

ROOT = Path(__file__).resolve().parents[2]
# What `python -m venv` puts there by itself.
_TOOLS = {"pip", "setuptools"}
MEGABYTE = 2**20
"""As ``du -m`` counts."""
LARGE = 5 * MEGABYTE


@dataclass(frozen=True)
class Weight:
    """An installed distribution and the bytes that its files take on the disk."""

    name: str
    version: str
    licence: str
    size: int


@dataclass(frozen=True)
class Environment:
    """A virtual environment; its interpreter shares nothing with the one that runs this."""

    folder: Path

    @classmethod
    def create(cls, interpreter: Path, folder: Path) -> Environment:
        """Make an empty one.

        Raises
        ------
        Refused
            If ``venv`` fails.
        """
        done = subprocess.run([interpreter, "-m", "venv", folder], capture_output=True, text=True)
        if done.returncode:
            raise Refused(f"{interpreter} -m venv failed: {(done.stdout + done.stderr).strip()}")
        return cls(folder)

    @property
    def programs(self) -> Path:
        """The folder of its interpreter and commands."""
        return self.folder / ("Scripts" if sys.platform == "win32" else "bin")

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.programs / "python"

    @property
    def site_packages(self) -> Path:
        """Where its distributions are."""
        pattern = "Lib/site-packages" if sys.platform == "win32" else "lib/python*/site-packages"
        (found,) = self.folder.glob(pattern)
        return found

    def install(self, wheel: Path) -> None:
        """Install promptray's wheel and what it needs, at the pinned versions, from the index."""
        pins = ROOT / "constraints.txt"
        pip("install", "--quiet", "-c", pins, wheel, doing=f"Installing {wheel.name}", python=self.python)

    def _distributions(self) -> list[Distribution]:
        found = distributions(path=[str(self.site_packages)])
        return sorted(found, key=lambda each: canonical(each.name))

    def weights(self) -> list[Weight]:
        """Return every distribution but the tools, sorted by name."""
        return [
            Weight(canonical(each.name), each.version, licence(each), sum(map(_on_disk, _files(each))))
            for each in self._distributions()
            if canonical(each.name) not in _TOOLS
        ]

    def size(self) -> int:
        """Return the bytes of the whole environment, as ``du`` counts them, less pip and setuptools."""
        site_packages = self.site_packages
        own_entries = {
            site_packages / file.parts[0]
            for each in self._distributions()
            if canonical(each.name) in _TOOLS
            for file in each.files or ()
            if file.parts[0] != ".."  # a command, beside the interpreter
        }
        return sum(map(_on_disk, _walk(self.folder, own_entries)))

    def large_files(self) -> dict[str, tuple[str, int]]:
        """Return the files of more than 5 MB: path below site-packages -> distribution, bytes."""
        site_packages = self.site_packages
        return {
            path.relative_to(site_packages).as_posix(): (canonical(each.name), path.stat().st_size)
            for each in self._distributions()
            for path in _files(each)
            if path.stat().st_size > LARGE
        }


def _files(found: Distribution) -> list[Path]:
    return [path for path in (Path(str(file.locate())) for file in found.files or ()) if path.is_file()]


def _walk(folder: Path, left_out: set[Path]) -> Iterator[Path]:
    yield folder
    for entry in folder.iterdir():
        if entry in left_out:
            continue
        if entry.is_dir() and not entry.is_symlink():
            yield from _walk(entry, left_out)
        else:
            yield entry


def _on_disk(path: Path) -> int:
    """Return the bytes of the blocks that a file or folder itself takes, where the system tells."""
    facts = os.lstat(path)
    return getattr(facts, "st_blocks", -(-facts.st_size // 512)) * 512
