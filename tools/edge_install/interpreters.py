"""Find the Pythons of this machine that an edge install can be tried with."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

# A Python without venv (Debian's, before python3-venv is installed) cannot make an environment.
_PROBE = "import ensurepip, sys, venv; print(sys.implementation.name, '%d.%d' % sys.version_info[:2])"


def find_interpreter(version: str, environment: Mapping[str, str] = os.environ) -> Path | None:
    """Return a CPython of this version that can make environments, or None.

    Looked for in this order: the running one, ``python3.X`` on the path, pyenv's versions, what uv manages.

    Parameters
    ----------
    version : str
        As ``"3.10"``.
    environment : mapping of str to str, optional
        Environment variables: the path, the home folder and pyenv's root.
    """
    for candidate in _candidates(version, environment):
        done = _run([str(candidate), "-I", "-c", _PROBE], environment)
        if done == f"cpython {version}":
            return candidate
    return None


def _candidates(version: str, environment: Mapping[str, str]) -> Iterator[Path]:
    yield Path(sys.executable)
    on_path = shutil.which(f"python{version}", path=environment.get("PATH"))
    if on_path:
        yield Path(on_path)
    home = environment.get("HOME") or environment.get("USERPROFILE") or ""
    pyenv = Path(environment.get("PYENV_ROOT") or Path(home) / ".pyenv")
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/python"))
    managed = _run(["uv", "python", "find", "--offline", version], environment)
    if managed:
        yield Path(managed)


def _run(command: list[str], environment: Mapping[str, str]) -> str:
    """Return what a command prints, or nothing: a shim without its Python is no error here."""
    try:
        done = subprocess.run(command, env=dict(environment), capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
