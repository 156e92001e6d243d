"""What most people write to score a film: pydicom, its pixel plugins, a window in NumPy, a common resize.

Written plainly and not badly: a window over the whole picture in float64 as pydicom itself applies it, and
OpenCV's resize, which is the fastest of the common ones.
"""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import cv2
import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import UID

from benchmarks.timing import Laps

#: Plugins of pydicom, in the order in which they are taken.
_PLUGINS = ("pylibjpeg", "pyjpegls", "pillow", "gdcm", "pydicom")
_PACKAGES = (
    "pydicom", "pylibjpeg", "pylibjpeg-openjpeg", "pylibjpeg-libjpeg", "pylibjpeg-rle", "pyjpegls", "pillow",
    "python-gdcm", "numpy", "opencv-python-headless", "opencv-python", "onnxruntime",
)  # fmt: skip
SIZE, SEEN = 256, 224
MEAN, STD = 0.4978, 0.2449


def network_input(path: Path) -> tuple[NDArray[np.float32], dict[str, float]]:
    """Return the network's input (1, 1, 224, 224) of CARZero's bundles, and milliseconds by stage."""
    laps = Laps()
    dataset = pydicom.dcmread(path)
    laps.end("read")
    plugin = plugin_for(dataset.file_meta.TransferSyntaxUID)
    if plugin is not None:  # or pydicom takes whatever is installed, GDCM first
        dataset.pixel_array_options(decoding_plugin=plugin)
    stored = dataset.pixel_array
    laps.end("decode")
    grey = windowed(stored, float(dataset.WindowCenter), float(dataset.WindowWidth))
    laps.end("window")
    pixels = resized(grey)
    laps.end("resize")
    return pixels, laps.stages


def plugin_for(syntax: UID) -> str | None:
    """Return the plugin that decodes a transfer syntax, rather pylibjpeg's; None: none is needed."""
    if not syntax.is_encapsulated:
        return None
    available = get_decoder(syntax).available_plugins
    return next((name for name in _PLUGINS if name in available), None)


def versions() -> dict[str, str]:
    """Return the versions of what is here of the stack."""
    here = {each.metadata["Name"].lower(): each.version for each in importlib.metadata.distributions()}
    return {name: here[name] for name in _PACKAGES if name in here}


def windowed(stored: NDArray[np.integer], centre: float, width: float) -> NDArray[np.uint8]:
    """Apply a linear window (PS3.3 C.11.2.1.2.1), rounded half up."""
    values = stored.astype(np.float64)
    shown = ((values - (centre - 0.5)) / (width - 1.0) + 0.5) * 255.0
    return np.floor(np.clip(shown, 0.0, 255.0) + 0.5).astype(np.uint8)


def resized(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Resize the longer side to 256, pad to a square, crop to 224 and normalise, as CARZero does."""
    factor = SIZE / max(grey.shape)
    rows, columns = (SIZE if side == max(grey.shape) else int(side * factor) for side in grey.shape)
    small = cv2.resize(grey, (columns, rows), interpolation=cv2.INTER_AREA)
    tall, wide = SIZE - rows, SIZE - columns
    square = np.pad(small, ((tall // 2, tall - tall // 2), (wide // 2, wide - wide // 2)))
    border = (SIZE - SEEN) // 2
    seen = square[border : border + SEEN, border : border + SEEN]
    plane = (seen.astype(np.float32) / np.float32(255) - np.float32(MEAN)) / np.float32(STD)
    return plane[None, None]
