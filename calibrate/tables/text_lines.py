"""The lines of a text file whose text may hold anything else."""

from __future__ import annotations

from pathlib import Path


def read_lines(path: Path) -> list[str]:
    r"""Return the lines of a file in UTF-8, without their ends, which are ``\n`` or ``\r\n``.

    ``str.splitlines`` also cuts at characters that only look like ends of lines (U+0085, U+2028, ``\x0b``).
    Names of files may hold them, and so may texts in JSON.

    Raises
    ------
    OSError, UnicodeDecodeError
    """
    *lines, last = path.read_bytes().decode("utf-8-sig").split("\n")
    return [line.removesuffix("\r") for line in ([*lines, last] if last else lines)]
