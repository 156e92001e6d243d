"""The JSON files that lie beside a checkpoint: read within a limit, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

from promptray.runtime.errors import BuildError

#: A ``tokenizer.json`` of 250,000 pieces has about 20 MiB.
_LARGEST = 64 * 2**20


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises
    ------
    OSError
        FileNotFoundError also for what is no regular file: a pipe would be waited for.
    ValueError, RecursionError
        For more than 64 MiB, what is no JSON (NaN and Infinity are none) or is nested too deeply.
    """
    if not path.is_file():
        raise FileNotFoundError
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError("too large")
    return json.loads(content.decode("utf-8"), parse_constant=_no_number)


def read_object(path: Path, *, code: str, cure: str) -> dict[str, Any]:
    """Read a JSON file that holds an object.

    Parameters
    ----------
    path : Path
    code : str
        ``checkpoint.config`` or ``text-model.invalid``.
    cure : str

    Raises
    ------
    BuildError
        With that code and cure, naming the file.
    """
    try:
        content = read_json(path)
    except (OSError, ValueError, RecursionError) as error:
        raise BuildError(
            code,
            f"the file cannot be read ({type(error).__name__})",
            artefact=path.name,
            expected="a JSON file of at most 64 MiB",
            cure=cure,
        ) from error
    if not isinstance(content, dict):
        raise BuildError(
            code,
            "the file holds no settings",
            artefact=path.name,
            expected="a JSON object",
            found=type(content).__name__,
            cure=cure,
        )
    return content


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
