"""The committed sample radiographs with their labels, as a table for ``evaluate`` and ``compare``."""

from __future__ import annotations

from pathlib import Path

SAMPLES = Path(__file__).parents[2] / "examples" / "samples"
NAMES = sorted(path.name for path in SAMPLES.glob("*.png"))
PNEUMONIA = {name: int(not name.startswith("normal")) for name in NAMES}


def write_labels(folder: Path, text: str | None = None) -> Path:
    """Write a CSV; without text, labels of the samples with a patient for each."""
    rows = [f"{name},{label},{int('viral' in name)},child of {name}" for name, label in PNEUMONIA.items()]
    plain = "\n".join(["file,pneumonia,viral pneumonia,patient_id", *rows]) + "\n"
    path = folder / "labels.csv"
    path.write_text(plain if text is None else text, encoding="utf-8")
    return path


def write_scores(folder: Path, name: str = "scores.csv", step: float = 1.0) -> Path:
    """Write made-up scores of the samples for pneumonia."""
    rows = [f"{image},pneumonia,{number * step}" for number, image in enumerate(NAMES)]
    (folder / name).write_text("\n".join(["file,finding,score", *rows]))
    return folder / name
