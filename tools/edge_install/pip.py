"""pip: what it collects is shown, what it complains of becomes an error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tools.edge_install.targets import Refused

# One retry: a machine without a network should say so within seconds.
_OPTIONS = ("--no-input", "--disable-pip-version-check", "--progress-bar=off", "--retries=1")


def pip(*arguments: str | Path, doing: str, python: str | Path = sys.executable) -> None:
    """Run one pip command, naming each distribution as it is collected (not with ``--quiet``).

    Parameters
    ----------
    *arguments : str or Path
        The command and its options.
    doing : str
        What it is for, to begin an error with.
    python : str or Path, optional
        The interpreter whose pip it is.

    Raises
    ------
    Refused
        If pip fails: with `doing`, pip's own errors, and whether the index answered at all.
    """
    command = [str(python), "-m", "pip", *map(str, arguments), *_OPTIONS]
    said = []
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            said.append(line)
            if line.startswith("Collecting "):
                print(f"  {line.split()[1]}", flush=True)
    if process.returncode:
        raise Refused(f"{doing} failed. {_why(said)}")


def _why(said: list[str]) -> str:
    errors = [line.removeprefix("ERROR: ").strip() for line in said if line.startswith("ERROR: ")]
    found = "pip says: " + (" ".join(dict.fromkeys(errors)) or "".join(said[-5:]).strip())
    if any("connection broken" in line for line in said):
        return (
            f"The package index did not answer; run this on a machine with a network, or set PIP_INDEX_URL "
            f"to an index that this one reaches. {found}"
        )
    return found
