"""Pictures that are there several times: told by what the network sees, and taken for one patient's."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from promptray.calibrate.adapt.units import units_of


def picture_sha256(picture: NDArray[Any]) -> str:
    """Return the hash of a picture as the network sees it: what tells that two files are one image."""
    digest = hashlib.sha256(f"{picture.dtype}:{picture.shape};".encode())
    digest.update(np.ascontiguousarray(picture).tobytes())
    return digest.hexdigest()


def set_sha256(hashes: Sequence[str]) -> str:
    """Return the hash of a set of pictures, in their order."""
    return hashlib.sha256(";".join(hashes).encode()).hexdigest()


def united_patients(patients: NDArray[np.int64] | None, pictures: Sequence[str]) -> NDArray[np.int64]:
    """Number the patients so that all who share a picture, however far round, are one.

    Copies under several ids would count as several patients, and make every interval too narrow.

    Parameters
    ----------
    patients : ndarray of int64, shape (n,), or None
        As the table numbers them; None where it does not say, and every image is a patient's only one.
    pictures : sequence of n str
        Hash of each picture (:func:`picture_sha256`).

    Returns
    -------
    ndarray of int64, shape (n,)
        Numbers from 0.
    """
    return units_of(len(pictures), {} if patients is None else {"patient": patients}, pictures)
