"""Every file of the DICOM folder has its expected outcome in outcomes.csv.

`door` is what the whole chain does for a chest model (CR, DX; breasts refused), with its notices; `pixels`
is what decoding alone does: `equal` to the manifest's hash, `lossy` (decoders differ in rounding: every pixel
within 1 of GDCM's, and the extremes within 1 of the manifest's), `twin` (no hash: equal to the same film with
a header), or the code of the refusal. Each refusal's message stands beside its code.
"""

import csv
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.encaps import get_frame

from promptray.runtime.bundle.image_rules import Greyscale
from promptray.runtime.dicom.facts import check_has_pixels, photometric_facts, pixel_format
from promptray.runtime.dicom.greyscale import to_grey
from promptray.runtime.dicom.greyscale_reference import to_grey_reference
from promptray.runtime.dicom.photometric import Photometric
from promptray.runtime.dicom.pixels import stored_values
from promptray.runtime.dicom.read import read_dataset, transfer_syntax
from promptray.runtime.door import open_picture
from promptray.runtime.errors import ImageError
from tests.dicom_factory import CHEST
from tests.runtime.dicom import gdcm_oracle

COMMITTED = Path(__file__).parents[2] / "data" / "dicom"
Result = TypeVar("Result")
TWIN = "gdcm-CR-MONO1-10-chest.dcm"

with (Path(__file__).parent / "outcomes.csv").open(encoding="utf-8", newline="") as _table:
    OUTCOMES = {row["file"]: row for row in csv.DictReader(_table)}


@pytest.fixture(scope="module")
def manifest(data_dir: Path | None) -> dict[Path, dict[str, str]]:
    """Path to manifest row, of the committed files or of the whole folder given with --data."""
    folder = data_dir / "dicom" if data_dir else COMMITTED
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as table:
        return {folder / row["file"]: row for row in csv.DictReader(table)}


def decode(path: Path) -> tuple[list[NDArray[np.integer]], list[Photometric]]:
    dataset = read_dataset(path.read_bytes())
    check_has_pixels(dataset)
    pixels = pixel_format(dataset)
    syntax, _ = transfer_syntax(dataset)
    frames = [stored_values(dataset, syntax, pixels, index) for index in range(pixels.frames)]
    return frames, [photometric_facts(dataset, pixels, index) for index in range(pixels.frames)]


def attempt(call: Callable[[Path], Result], path: Path) -> Result | ImageError:
    try:
        return call(path)
    except ImageError as error:
        return error


def test_the_table_covers_the_folder(manifest: dict[Path, dict[str, str]]) -> None:
    assert not {path.name for path in manifest} - OUTCOMES.keys()
    assert len(manifest) >= 30


def test_the_door(manifest: dict[Path, dict[str, str]]) -> None:
    for path in manifest:
        expected = OUTCOMES[path.name]
        outcome = attempt(lambda path: open_picture(path, CHEST, Greyscale()), path)
        if isinstance(outcome, ImageError):
            refusal = (outcome.code, outcome.message)
            assert refusal == (expected["door"], expected["door_message"]), f"{path.name}: {outcome}"
            assert outcome.artefact == path.name
            assert outcome.cure or outcome.expected, path.name
            continue
        assert expected["door"] == "decoded", path.name
        assert [notice.code for notice in outcome.notices] == expected["notices"].split(), path.name
        assert outcome.grey.shape == (outcome.source.rows, outcome.source.columns)


def test_the_pixels(manifest: dict[Path, dict[str, str]]) -> None:
    for path, row in manifest.items():
        expected = OUTCOMES[path.name]["pixels"]
        outcome = attempt(decode, path)
        if isinstance(outcome, ImageError):
            refusal = (outcome.code, outcome.message)
            assert refusal == (expected, OUTCOMES[path.name]["pixels_message"]), f"{path.name}: {outcome}"
            continue
        frames, _ = outcome
        if expected == "twin":
            np.testing.assert_array_equal(frames, decode(path.with_name(TWIN))[0])
            continue
        array = np.stack(frames) if len(frames) > 1 else frames[0]
        digest = hashlib.sha256(array.astype(row["decoded_dtype"]).tobytes()).hexdigest()
        assert (digest == row["decoded_sha256"]) == (expected == "equal"), path.name
        if expected == "lossy":
            assert abs(int(array.min()) - float(row["decoded_min"])) <= 1, path.name
            assert abs(int(array.max()) - float(row["decoded_max"])) <= 1, path.name
            assert np.abs(array.astype(int) - by_gdcm(path)).max() <= 1, path.name


def by_gdcm(path: Path) -> NDArray[np.integer]:
    dataset = read_dataset(path.read_bytes())
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    syntax, _ = transfer_syntax(dataset)
    return gdcm_oracle.decode(frame, syntax, (dataset.Rows, dataset.Columns), dataset.BitsStored)


def test_fast_and_reference_chain_are_equal(manifest: dict[Path, dict[str, str]]) -> None:
    compared = 0
    for path in manifest:
        if OUTCOMES[path.name]["pixels"] not in ("equal", "lossy", "twin"):
            continue
        frames, facts = decode(path)
        for frame, photometric in list(zip(frames, facts, strict=True))[:: max(1, len(frames) // 3)]:
            fast, reference = to_grey(frame, photometric), to_grey_reference(frame, photometric)
            np.testing.assert_array_equal(fast, reference, err_msg=path.name)
            compared += 1
    assert compared >= 15
