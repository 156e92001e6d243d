"""Nothing is written into a bundle: with one file more it is refused wherever it is opened."""

from __future__ import annotations

import os
from pathlib import Path

from promptray.runtime.bundle.names import MANIFEST, SEAL
from promptray.runtime.errors import PromptRayError


def require_outside(output: str | os.PathLike[str]) -> None:
    """Refuse a place for output that is a bundle, or lies in one. Writes nothing.

    Parameters
    ----------
    output : path
        A file or folder, which need not be there.

    Raises
    ------
    PromptRayError
        ``output.in-bundle``.
    """
    place = Path(os.path.realpath(output))
    for folder in (place, *place.parents):
        if all(os.path.isfile(folder / name) for name in (MANIFEST, SEAL)):
            raise PromptRayError(
                "output.in-bundle",
                "the output would lie in a bundle, which could not be opened any more",
                artefact=place.name,
                expected="a place outside of every bundle",
                found=f"a place in {folder.name}",
                cure="choose another place: a bundle is never changed",
            )
