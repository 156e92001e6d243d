"""Decode lossless JPEG 2000 with the OpenJPEG that Pillow brings.

It is built with threads and takes as many as the environment variable ``OPJ_NUM_THREADS`` says, one without;
pylibjpeg's has none. It can also leave out the highest resolutions. A reversible stream has one decoding, so
both libraries give the same samples; what is not reversible goes to pylibjpeg, whose rounding scores know.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile

#: Pillow's modes of one component.
_MOST_BITS = {"L": 8, "I;16": 16}


def takes(precision: int) -> bool:
    """Tell whether Pillow keeps all bits of unsigned samples, and an error of its decoder is an error here.

    With the process-wide switch ``LOAD_TRUNCATED_IMAGES`` it would return what it has.
    """
    return precision <= _MOST_BITS["I;16"] and not ImageFile.LOAD_TRUNCATED_IMAGES


def decode_unsigned(stream: bytes, precision: int, reduction: int = 0) -> NDArray[np.unsignedinteger]:
    """Decode a code stream of one unsigned component.

    Parameters
    ----------
    stream : bytes
        That :func:`promptray.runtime.dicom.j2k_stream.check_j2k` accepts, reversible.
    precision : int
        Bits of a sample, as its header says.
    reduction : int
        Resolutions to leave out: each halves rows and columns, rounded up.

    Returns
    -------
    ndarray of uint8 or uint16, shape (rows, columns)

    Raises
    ------
    OSError, SyntaxError, ValueError
        Pillow's, for a stream that cannot be decoded.
    """
    with Jpeg2KImageFile(io.BytesIO(stream)) as image:
        if reduction:
            image.reduce = reduction
        image.load()
        unused = _MOST_BITS[image.mode] - precision  # Pillow spreads samples over all bits of its mode
        words: NDArray[np.unsignedinteger] = np.right_shift(np.asarray(image), unused)
    return words
