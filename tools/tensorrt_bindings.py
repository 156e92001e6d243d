"""Install the Python bindings of several TensorRTs side by side, each into a folder of this environment.

    python -m tools.tensorrt_bindings

TensorRT's libraries are not installed, and nothing can run: tests look up the names that the code uses.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement

LIST = Path(__file__).with_suffix(".txt")
FOLDER = Path(sys.prefix) / "tensorrt"


def wanted() -> list[Requirement]:
    """All that are listed, for this machine or not."""
    lines = LIST.read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def is_for_here(requirement: Requirement) -> bool:
    """Whether there is such a wheel for this machine and this Python."""
    return requirement.marker is None or requirement.marker.evaluate()


def version_of(requirement: Requirement) -> str:
    """The one version that is allowed."""
    (pin,) = requirement.specifier
    return pin.version


def folder_of(requirement: Requirement) -> Path:
    """Where it is, or will be."""
    return FOLDER / version_of(requirement)


def main() -> int:
    """Install what is not there yet."""
    for requirement in wanted():
        folder = folder_of(requirement)
        if is_for_here(requirement) and not folder.exists():
            pip = [
                sys.executable,
                "-m",
                "pip",
                "install",
                "--quiet",
                "--no-input",
                "--disable-pip-version-check",
            ]
            # What was interrupted is begun anew: only a whole installation gets the folder's name.
            partial = folder.with_name(f"{folder.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            options = ["--no-deps", "--only-binary", ":all:", "--target", str(partial)]
            subprocess.run([*pip, *options, f"{requirement.name}{requirement.specifier}"], check=True)
            partial.rename(folder)
            print(f"  {requirement.name} {version_of(requirement)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
