"""What the tests of stored values share: one frame of an object, or the code of its refusal."""

import numpy as np
import pytest
from numpy.typing import NDArray

from promptray.runtime.dicom.facts import check_has_pixels, pixel_format
from promptray.runtime.dicom.pixels import stored_values
from promptray.runtime.dicom.read import read_dataset, transfer_syntax
from promptray.runtime.errors import ImageError


def decode(data: bytes, index: int = 0) -> NDArray[np.integer]:
    dataset = read_dataset(data)
    check_has_pixels(dataset)
    syntax, _ = transfer_syntax(dataset)
    return stored_values(dataset, syntax, pixel_format(dataset), index)


def code_of(data: bytes, index: int = 0) -> str:
    with pytest.raises(ImageError) as refusal:
        decode(data, index)
    return refusal.value.code
