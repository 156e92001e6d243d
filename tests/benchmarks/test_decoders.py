"""Decoders of one film agree before they are timed; what they take is not looked at."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import decoders
from promptray.runtime.cores import DECODE_THREADS


@pytest.fixture(autouse=True)
def _own_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(DECODE_THREADS, "1")  # and as it was, afterwards


def test_every_syntax_that_can_be_written_has_its_decoders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "decoders.json"
    arguments = ["decoders", "--size", "96", "80", "--rounds", "2", "-o", str(output)]
    monkeypatch.setattr(sys, "argv", arguments)
    decoders.main()
    found = json.loads(output.read_text(encoding="utf-8"))
    assert found["size"] == [96, 80]
    assert "python-gdcm" in found["versions"]
    assert found["ms"].keys() >= {
        "JPEG 2000 lossless", "JPEG-LS lossless", "JPEG lossless", "RLE", "JPEG baseline, 8 bit",
    }  # fmt: skip
    assert all(row["promptray"]["ratio"] == 1.0 and len(row) > 1 for row in found["ms"].values())


def test_each_decodes_with_threads_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: dict[str, str | None] = {}

    def seen(*_: object, **__: object) -> np.ndarray:
        threads["now"] = os.environ.get(DECODE_THREADS)
        return np.zeros(1)

    for name in ("stored_values", "decode_unsigned", "_by_pydicom"):
        monkeypatch.setattr(decoders, name, seen)
    film = decoders.enlarged(decoders.SAMPLE, 96, 80)
    path = decoders.write_films(film, tmp_path, ["JPEG 2000 lossless"])["JPEG 2000 lossless"]
    taken = {}
    for name, decode in decoders.decoders("JPEG 2000 lossless", path).items():
        if name != "imagecodecs":  # does not ask
            decode()
            taken[name] = threads["now"]
    cores = str(os.cpu_count())
    assert (taken["promptray"], taken["pylibjpeg"], taken["Pillow, 1 threads"]) == (cores, None, "1")


def test_a_decoder_with_other_samples_is_not_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoders, "_by_pydicom", lambda *_: np.zeros((96, 80), np.uint16))
    with pytest.raises(AssertionError, match="JPEG 2000 lossless: pylibjpeg"):
        decoders.measure(tmp_path, decoders.SAMPLE, 96, 80, 2)
