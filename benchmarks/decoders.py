"""Decoders of each transfer syntax that this machine has, on one film: which is the fastest.

    python -m benchmarks.decoders -o benchmarks/results/decoders.json

Beside the runtime's own choice: what pydicom calls (pylibjpeg, GDCM), Pillow, and imagecodecs where it is
installed (no dependency: `pip install imagecodecs` in an environment of its own). Of lossless files all must
give the same samples. What a decoder refuses is not measured here: see tests/runtime/dicom.
"""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import io
import os
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder

from benchmarks.file_to_input import SAMPLE
from benchmarks.film import enlarged, write_films
from benchmarks.timing import interleaved, machine, report, save
from promptray.runtime.dicom.facts import pixel_format
from promptray.runtime.dicom.j2k_decode import decode_unsigned
from promptray.runtime.dicom.pixels import stored_values

Decode = Callable[[], NDArray[Any]]
OURS = "promptray"
#: Syntax -> plugins of pydicom beside the runtime's choice, and the function of imagecodecs.
_OTHERS: dict[str, tuple[tuple[str, ...], str]] = {
    "JPEG 2000 lossless": (("pylibjpeg", "gdcm"), "jpeg2k_decode"),
    "JPEG-LS lossless": (("pyjpegls", "gdcm"), "jpegls_decode"),
    "JPEG lossless": (("gdcm",), "ljpeg_decode"),
    "RLE": (("pylibjpeg", "gdcm", "pydicom"), "dicomrle_decode"),
    "JPEG baseline, 8 bit": (("gdcm", "pillow"), "jpeg8_decode"),
}


def decoders(name: str, path: Path) -> dict[str, Decode]:
    """Return the decoders of a file, by the name of their library."""
    dataset = pydicom.dcmread(path)
    syntax, pixels = dataset.file_meta.TransferSyntaxUID, pixel_format(dataset)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    plugins, imagecodecs_name = _OTHERS[name]
    found: dict[str, Decode] = {OURS: partial(stored_values, dataset, syntax, pixels, 0)}
    decoder = get_decoder(syntax)
    for plugin in plugins:
        if plugin in decoder.available_plugins:
            found[plugin] = partial(_by_pydicom, decoder, dataset, plugin)
    if name.startswith("JPEG 2000"):
        for threads in (1, os.cpu_count() or 1):
            found[f"Pillow, {threads} threads"] = partial(_threaded, threads, frame, pixels.bits_stored)
        found["Pillow, halved twice"] = partial(decode_unsigned, frame, pixels.bits_stored, 2)
    if "8 bit" in name:
        found["Pillow"] = lambda: np.asarray(Image.open(io.BytesIO(frame)))
    if (codecs := _imagecodecs()) is not None:
        options = (np.uint16,) if name == "RLE" else ()
        found["imagecodecs"] = partial(getattr(codecs, imagecodecs_name), frame, *options)
    return found


def _by_pydicom(decoder: Any, dataset: pydicom.Dataset, plugin: str) -> NDArray[Any]:
    samples: NDArray[Any] = decoder.as_array(dataset, index=0, raw=True, decoding_plugin=plugin)[0]
    return samples


def _threaded(threads: int, frame: bytes, precision: int) -> NDArray[Any]:
    os.environ["OPJ_NUM_THREADS"] = str(threads)
    return decode_unsigned(frame, precision)


def _imagecodecs() -> Any:
    try:
        return importlib.import_module("imagecodecs")
    except ImportError:
        return None


def measure(folder: Path, sample: Path, rows: int, columns: int, rounds: int) -> dict[str, Any]:
    """Write the films into `folder` and time the decoders of each."""
    measured = {}
    for name, path in write_films(enlarged(sample, rows, columns), folder).items():
        if name not in _OTHERS:
            continue
        found = decoders(name, path)
        expected = found[OURS]()
        for library, decode in found.items():
            same = np.array_equal(decode().reshape(-1), expected.reshape(-1))
            assert same or "8 bit" in name or "halved" in library, f"{name}: {library}"
        measured[name] = interleaved(found, rounds=rounds, baseline=OURS)
        report(name, measured[name])
    return measured


def main() -> None:
    """Measure, print and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, nargs=2, default=(2500, 2000), metavar=("ROWS", "COLUMNS"))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    rows, columns = options.size
    with tempfile.TemporaryDirectory() as folder:
        found = measure(Path(folder), SAMPLE, rows, columns, options.rounds)
    if options.output:
        libraries = ("pylibjpeg-openjpeg", "pylibjpeg-rle", "pyjpegls", "python-gdcm", "pillow", "simplejpeg")
        installed = {each.name.lower(): each.version for each in importlib.metadata.distributions()}
        versions = {name: installed[name] for name in libraries if name in installed}
        if (codecs := _imagecodecs()) is not None:
            versions["imagecodecs"] = codecs.__version__
        save(options.output, {"machine": machine(), "size": options.size, "versions": versions, "ms": found})


if __name__ == "__main__":
    main()
