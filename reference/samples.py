"""Make the sample radiographs of the demo, and the golden inputs that every bundle carries by default.

    python -m reference.samples --data DATA

writes ``examples/samples`` (12 radiographs, each as PNG and as DICOM) and ``export/golden`` (16 small PNGs).
The same data gives the same pixels and headers. All are derived from CC BY 4.0 images; attribution and
changes are recorded beside them.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from promptray.runtime.resize import resize_area
from reference.derived_dicom import ENCODINGS, write_dicom
from reference.radiographs import ATTRIBUTION, LICENCE, Radiograph, read_radiographs

ROOT = Path(__file__).parents[1]
SAMPLES = {"normal": 6, "bacterial": 3, "viral": 3}
GOLDEN = {"normal": 6, "bacterial": 5, "viral": 5}
GOLDEN_SIDE = 256

_GOLDEN_NOTE = """\
# The default golden inputs

Every bundle that names no golden inputs of its own carries these 16 radiographs with the scores and maps
that the fp32 model gives them, so that any machine can check itself. They only have to be pictures of the
right kind: they measure agreement, not medical worth.

Children's chest radiographs by {attribution} ({licence}, https://creativecommons.org/licenses/by/4.0/).
Changes: reduced to at most {side} pixels on the longer side, stored as 8-bit grey PNG, renamed.
`python -m reference.samples` makes them.

| file | image in the collection |
| --- | --- |
"""


def choose(radiographs: list[Radiograph], wanted: Mapping[str, int], taken: set[str]) -> list[Radiograph]:
    """Choose images of distinct patients per class, in an order that no one picked by eye.

    Patients with images of two classes, and those in ``taken``, are passed over; ``taken`` grows.
    """
    chosen = []
    classes: dict[str, set[str]] = {}
    for radiograph in radiographs:
        classes.setdefault(radiograph.patient, set()).add(radiograph.label)
    for label, count in wanted.items():
        left = count
        for radiograph in sorted(radiographs, key=lambda r: hashlib.sha256(r.image_id.encode()).digest()):
            usable = classes[radiograph.patient] == {label} and radiograph.patient not in taken
            if left and usable:
                chosen.append(radiograph)
                taken.add(radiograph.patient)
                left -= 1
        if left:
            raise ValueError(f"the collection has too few patients of class {label!r}")
    return chosen


def numbered(chosen: list[Radiograph]) -> Iterator[tuple[str, Radiograph]]:
    """Name images by class and number: ``normal-1``."""
    seen: dict[str, int] = {}
    for radiograph in chosen:
        seen[radiograph.label] = seen.get(radiograph.label, 0) + 1
        yield f"{radiograph.label}-{seen[radiograph.label]}", radiograph


def write_samples(chosen: list[Radiograph], folder: Path) -> None:
    """Write every image as PNG and as DICOM, the encodings in turn, and ``ATTRIBUTION.csv``."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, (name, radiograph) in enumerate(numbered(chosen)):
        grey = radiograph.grey()
        write_png(grey, folder / f"{name}.png")
        rows.append((f"{name}.png", radiograph, "decoded from JPEG, stored as 8-bit grey PNG"))
        encoding = ENCODINGS[number % len(ENCODINGS)]
        write_dicom(grey, folder / f"{name}.dcm", encoding, radiograph.image_id)
        rows.append((f"{name}.dcm", radiograph, f"decoded from JPEG, stored as DICOM: {encoding}"))
    with (folder / "ATTRIBUTION.csv").open("w", newline="", encoding="utf-8") as table:
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(["file", "source_image", "licence", "attribution", "changes"])
        for file, radiograph, changes in rows:
            writer.writerow([file, radiograph.source_file, LICENCE, ATTRIBUTION, changes])


def write_golden(chosen: list[Radiograph], folder: Path) -> None:
    """Write the images at most `GOLDEN_SIDE` long, and ``ATTRIBUTION.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    note = _GOLDEN_NOTE.format(attribution=ATTRIBUTION, licence=LICENCE, side=GOLDEN_SIDE)
    for name, radiograph in numbered(chosen):
        grey = radiograph.grey()
        ratio = GOLDEN_SIDE / max(grey.shape)
        rows, columns = (round(side * ratio) for side in grey.shape)
        write_png(resize_area(grey, rows, columns), folder / f"{name}.png")
        note += f"| {name}.png | {radiograph.source_file} |\n"
    (folder / "ATTRIBUTION.md").write_text(note, encoding="utf-8")


def write_png(grey: NDArray[np.uint8], path: Path) -> None:
    """Write a grey picture without metadata."""
    Image.fromarray(grey).save(path, optimize=True)


def main() -> None:
    """Write both folders."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds cxr/labels.csv")
    parser.add_argument("--root", type=Path, default=ROOT, help="project to write into")
    arguments = parser.parse_args()
    radiographs = read_radiographs(arguments.data)
    taken: set[str] = set()
    write_samples(choose(radiographs, SAMPLES, taken), arguments.root / "examples" / "samples")
    write_golden(choose(radiographs, GOLDEN, taken), arguments.root / "export" / "golden")


if __name__ == "__main__":
    main()
