"""Adapt two small models to mammograms of three densities: a check of the pipeline on real pictures.

    python -m benchmarks.density --data DIR

DIR holds ``mammo/`` (124 mammograms of DMID, F fatty, G fatty-glandular, D dense-glandular). Writes
``benchmarks/results/density.json`` and ``.md``. The models know nothing of breasts: a dual encoder of random
weights from the tests, and a ConvNeXt of random weights. So this is a pipeline check, not a medical result.

No patient ids are published. Images are numbered, and the collection was divided into blocks of 24
consecutive numbers: a block is kept whole here.
"""

from __future__ import annotations

import argparse
import csv
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import msgspec
import yaml

from benchmarks.timing import machine, save
from promptray.calibrate.adapt.cases import Columns
from promptray.calibrate.adapt.page import advice_line, difference_rows, stage_rows, table
from promptray.calibrate.adapt.report import AdaptationReport
from promptray.calibrate.adapt.run import Settings, adapt

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results" / "density.json"
HEADING = "Pipeline check, not a medical result"
_DUAL_ENCODER = ROOT / "tests" / "data" / "biomedclip_tiny" / "open_clip_pytorch_model.bin"
_BLOCK = 24
_CLASSES = {"F": "fatty", "G": "fatty-glandular", "D": "dense-glandular"}
_SIDE = 128
_TRAINING = {"epochs": 12, "batch": 16, "stop": 4, "rate": 3e-4}


def write_labels(source: Path, target: Path) -> None:
    """Write file, density and the block of each image."""
    with source.open(encoding="utf-8", newline="") as read, target.open("w", newline="") as write:
        writer = csv.writer(write)
        writer.writerow(["file", "density", "block"])
        for row in csv.DictReader(read):
            number = int(re.findall(r"\d+", row["source_file"])[0])
            writer.writerow([row["file"], row["density"], (number - 1) // _BLOCK])


def recipes(folder: Path) -> dict[str, Path]:
    """Write the two recipes, and the ConvNeXt's random weights."""
    import torch

    from promptray.export.torchvision_guard import ensure_torchvision_imports

    ensure_torchvision_imports()
    import timm

    torch.manual_seed(0)
    weights = folder / "convnext_atto.pth"
    torch.save(timm.create_model("convnext_atto", num_classes=len(_CLASSES)).state_dict(), weights)
    common = {
        "recipe_version": 1,
        "model": {
            "licence": "Apache-2.0",
            "intended_use": "Pipeline check; it knows nothing of breasts.",
            "training_data": "None: random weights",
        },
        "door": {"modalities": ["MG"]},
        "relation": "ordinal",
        "groups": {"dense": ["D"]},
    }
    dual = {
        "name": "density-dual-encoder",
        "family": "open_clip",
        "checkpoint": str(_DUAL_ENCODER),
        "model_options": {"preprocessing": "density-study", "context": 20},
        "findings": [{"key": key, "prompt": f"The breast is {name}"} for key, name in _CLASSES.items()],
    }
    convnext = {
        "name": "density-convnext",
        "family": "convnext",
        "checkpoint": str(weights),
        "model_options": {"preprocessing": "squash", "image_size": _SIDE},
        "findings": [{"key": key} for key in _CLASSES],
    }
    found = {}
    for name, own in (("dual encoder", dual), ("ConvNeXt", convnext)):
        found[name] = folder / f"{own['name']}.yaml"
        found[name].write_text(yaml.safe_dump({**common, **own}, sort_keys=False), encoding="utf-8")
    return found


def measure(data: Path) -> dict[str, Any]:
    """Adapt both models; return their reports and how long it took."""
    reports, seconds = {}, {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_labels(data / "mammo" / "labels.csv", folder / "labels.csv")
        settings = Settings(modality="MG", training=_TRAINING)
        for name, recipe in recipes(folder).items():
            start = time.perf_counter()
            reports[name] = adapt(
                recipe,
                data / "mammo",
                folder / "labels.csv",
                Columns("density", group="block"),
                folder / name,
                settings,
                cache=folder / "cache",
                progress=lambda stage, message, part: print(f"{part:4.0%} {stage}: {message}"),
            )
            seconds[name] = round(time.perf_counter() - start)
    return {
        "heading": HEADING,
        "machine": machine(),
        "seconds": seconds,
        "reports": {name: msgspec.to_builtins(report) for name, report in reports.items()},
    }


def page(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    seconds = ", ".join(f"{name} {taken} s" for name, taken in result["seconds"].items())
    text = (
        f"# {HEADING}\n\n<!-- Written by `python -m benchmarks.density --data DIR`. Do not edit. -->\n\n"
        "Two models of random weights are adapted to mammograms of three densities (DMID, F fatty, G "
        "fatty-glandular, D dense-glandular). They know nothing of breasts, so no number here says what a "
        "trained model can do: it is shown that division, vectors, probe, fine-tuning, bundles and report "
        "work together on real pictures.\n\nTime, with all builds, "
        f"{result['machine']['cores']} shared cores: {seconds}.\n"
    )
    for name, content in result["reports"].items():
        report = msgspec.convert(content, AdaptationReport)
        lines = [*report.advice.reasons, *report.notes]
        text += f"\n## {name}\n\n{advice_line(report)}\n\n" + "".join(f"- {line}\n" for line in lines)
        text += "\n" + table(*stage_rows(report)) + "\n" + table(*difference_rows(report)) + "\n"
        rows = [
            [part.name, str(part.images), str(part.units), *map(str, part.classes.values())]
            for part in report.division.parts
        ]
        text += table(["part", "images", "blocks", *report.classes], rows)
    return text


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with mammo/")
    result = measure(parser.parse_args().data)
    save(RESULTS, result)
    RESULTS.with_suffix(".md").write_text(page(result), encoding="utf-8", newline="\n")
    print(page(result))


if __name__ == "__main__":
    main()
