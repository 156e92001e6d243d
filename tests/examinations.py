"""Examinations for tests: mammograms as DICOM files, and the density classifier's bundle with a rule."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset

from tests import dicom_factory
from tests.bundle_factory import edited
from tests.carzero_tiny import build_once
from tests.convnext_tiny import FOLDER, write_recipe

VIEWS = ("L CC", "L MLO", "R CC", "R MLO")
RULE: dict[str, Any] = {"views": list(VIEWS), "over_views": "mean", "over_sides": "max"}
MAMMOGRAM = "1.2.840.10008.5.1.4.1.1.1.2"
PICTURES = sorted((FOLDER / "images").glob("*.png"))


def density_bundle(folder: Path) -> Path:
    """The tiny density classifier, built once, with the rule of BI-RADS: density of the denser breast."""
    return build_once(folder, "density-exam", lambda at: write_recipe(at, examination=RULE))


def with_rule(bundle: Path, folder: Path, **changes: Any) -> Path:
    """A copy of a bundle whose rule is `RULE` changed; ``rule=None`` leaves none."""
    rule = None if changes == {"rule": None} else {**RULE, **changes}
    copy = Path(shutil.copytree(bundle, folder / "ruled.bundle"))
    edited(copy, lambda document: document.__setitem__("examination", rule))
    return copy


def pixels(number: int) -> NDArray[np.uint16]:
    """A 12-bit picture of which no two are alike."""
    with Image.open(PICTURES[number % len(PICTURES)]) as image:
        grey = np.asarray(image.convert("L"), np.uint16)
    return np.roll(grey << 4, 7 * number, axis=1)


def code(value: str, scheme: str = "SCT", **more: Any) -> Dataset:
    """An item of a code sequence."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, "as coded"
    for keyword, content in more.items():
        setattr(item, keyword, content)
    return item


def mammogram(label: str | None, number: int, **changes: Any) -> bytes:
    """A DICOM file of one view of one study; a change of None deletes a tag."""
    side, projection = label.split() if label else (None, None)
    tags: dict[str, Any] = {
        "SOPClassUID": MAMMOGRAM,
        "SOPInstanceUID": f"1.2.3.4.{number + 1}",
        "StudyInstanceUID": "1.2.3.4",
        "Modality": "MG",
        "BodyPartExamined": "BREAST",
        "ImageLaterality": side,
        "ViewPosition": projection,
    }
    made = dicom_factory.dataset(pixels(number), **{**tags, **changes})
    return dicom_factory.encode(made, sop_class=MAMMOGRAM)


def study(labels: tuple[str, ...] = VIEWS, **changes: Any) -> list[bytes]:
    """One DICOM file for each view."""
    return [mammogram(label, number, **changes) for number, label in enumerate(labels)]


def write_study(folder: Path, labels: tuple[str, ...] = VIEWS, **changes: Any) -> list[Path]:
    """The same as files, named by their views."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, (label, data) in enumerate(zip(labels, study(labels, **changes), strict=True)):
        path = folder / f"{number}-{label.replace(' ', '')}.dcm"
        path.write_bytes(data)
        paths.append(path)
    return paths
