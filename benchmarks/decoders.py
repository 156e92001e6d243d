"""Decoders of each transfer syntax that this machine has, on one film: which is the fastest.

    python -m benchmarks.decoders -o benchmarks/results/decoders.json

Beside the runtime's own choice, with a thread for each core as the commands give it: what pydicom calls
(pylibjpeg, GDCM), Pillow, and imagecodecs where it is installed (no dependency: install it into an
environment of its own), whose HTJ2K is OpenJPH; without it there is no film of HTJ2K. Of lossless files all
must give the same samples. What a decoder refuses is not measured here: see tests/runtime/dicom.
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
from promptray.runtime.cores import DECODE_THREADS
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
    "HTJ2K lossless": (("pylibjpeg",), "htj2k_decode"),
    "RLE": (("pylibjpeg", "gdcm", "pydicom"), "dicomrle_decode"),
    "JPEG baseline, 8 bit": (("gdcm", "pillow"), "jpeg8_decode"),
}


def decoders(name: str, path: Path) -> dict[str, Decode]:
    """Return the decoders of a file, by the name of their library."""
    dataset = pydicom.dcmread(path)
    syntax, pixels = dataset.file_meta.TransferSyntaxUID, pixel_format(dataset)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    plugins, imagecodecs_name = _OTHERS[name]
    cores = os.cpu_count() or 1
    ours = partial(stored_values, dataset, syntax, pixels, 0)
    found: dict[str, Decode] = {OURS: partial(_with_threads, cores, ours)}
    decoder = get_decoder(syntax)
    for plugin in plugins:
        if plugin in decoder.available_plugins:
            found[plugin] = partial(_with_threads, None, partial(_by_pydicom, decoder, dataset, plugin))
    if name.startswith("JPEG 2000"):
        pillow = partial(decode_unsigned, frame, pixels.bits_stored)
        for threads in (1, cores):
            found[f"Pillow, {threads} threads"] = partial(_with_threads, threads, pillow)
        found["Pillow, halved twice"] = partial(_with_threads, 1, partial(pillow, reduction=2))
    if "8 bit" in name:
        found["Pillow"] = lambda: np.asarray(Image.open(io.BytesIO(frame)))
    if (codecs := _imagecodecs()) is not None:
        decode = partial(getattr(codecs, imagecodecs_name), frame)
        if name == "RLE":  # bytes, of the type that it is told
            found["imagecodecs"] = lambda: np.frombuffer(decode(np.uint16), np.uint16)
        else:
            found["imagecodecs"] = decode
    return found


def _by_pydicom(decoder: Any, dataset: pydicom.Dataset, plugin: str) -> NDArray[Any]:
    samples: NDArray[Any] = decoder.as_array(dataset, index=0, raw=True, decoding_plugin=plugin)[0]
    return samples


def _with_threads(threads: int | None, decode: Decode) -> NDArray[Any]:
    """Decode with so many threads of OpenJPEG's, or as the library comes: they take turns in one process."""
    if threads is None:
        os.environ.pop(DECODE_THREADS, None)
    else:
        os.environ[DECODE_THREADS] = str(threads)
    return decode()


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
            versions["imagecodecs"] = f"{codecs.__version__}, {codecs.htj2k_version()}"
        save(options.output, {"machine": machine(), "size": options.size, "versions": versions, "ms": found})


if __name__ == "__main__":
    main()
