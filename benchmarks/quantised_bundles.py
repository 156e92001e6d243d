"""Size, time and the verdict of the gate for quantised bundles, built from recipes.

    python -m benchmarks.quantised_bundles --data DATA -o benchmarks/results/quantised_bundles.json

The reference model and a trained SqueezeNet are built by `promptray build`'s function with each of the int8
schemes that suit them, and with every operator in int8, which must be refused. Ranges are taken from the
radiographs of a quarter of the patients, the gate is held on those of the others. Both models were trained on
part of these images: what is measured is agreement with fp32, nothing of new patients.

Time is one call with batch 1, the schemes of a graph taking turns; `ratio` is to fp32 in the same round, with
quartiles.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial, wraps
from pathlib import Path
from typing import Any

import msgspec
import onnx
import onnxruntime as ort
import yaml

from benchmarks.everything_int8 import everything_int8
from benchmarks.timing import interleaved, machine, report, save
from promptray.calibrate.gates.report import GateReport
from promptray.calibrate.pipeline import build
from promptray.calibrate.quantise import Quantised, Scheme, quantise
from promptray.calibrate.quantise.observe import Feeds
from promptray.calibrate.quantise.session import open_session
from promptray.runtime.errors import BuildError
from promptray.runtime.machine_class import machine_class

REFERENCE = Path(__file__).parents[1] / "reference"
WEIGHTS = Path("weights") / "squeezenet1_1-kermany3" / "model.safetensors"
EVERYTHING = "everything int8"
INT8, DYNAMIC, CONVOLUTIONS = ({"scheme": f"int8-{name}"} for name in ("qdq", "dynamic", "convolutions"))
#: Variants: sections `quantise` without images. Recipes refuse int8-dynamic of image graphs and heads.
VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "reference model": {
        "int8-qdq": {"image": INT8, "head": INT8, "text": DYNAMIC},
        EVERYTHING: {"image": INT8, "head": INT8},
    },
    "SqueezeNet 1.1": {
        "int8-convolutions": {"image": CONVOLUTIONS},
        "int8-qdq": {"image": INT8},
        EVERYTHING: {"image": INT8},
    },
}
SOURCES = "Kermany, paediatric, CC BY 4.0; covid-chestxray-dataset; NIH ChestX-ray14"
#: Group of the table -> what it says of the findings; of other groups only `pneumonia` is known, if that.
GROUPS = {
    "normal": {"normal": 1, "no pneumonia": 1, "bacterial pneumonia": 0, "viral pneumonia": 0},
    "pneumonia-bacterial": {"normal": 0, "no pneumonia": 0, "bacterial pneumonia": 1, "viral pneumonia": 0},
    "pneumonia-viral": {"normal": 0, "no pneumonia": 0, "bacterial pneumonia": 0, "viral pneumonia": 1},
}
PARTS = {"calibration": {0}, "gate": {1, 2, 3}}
COLUMNS = ["file", "patient_id", "modality", "pneumonia", *GROUPS["normal"]]


@dataclass
class Taken:
    """The graphs that a build changed, for timing; of stages that an earlier variant finished, none."""

    roles: list[str]
    how: Callable[..., Quantised]
    fp32: dict[str, bytes] = field(default_factory=dict)
    made: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    """Scheme and graph of a role."""
    feeds: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def change(self) -> Callable[..., Quantised]:
        """Return `how`, kept under its name, which is in the cache's keys."""

        @wraps(self.how)
        def changed(content: bytes, scheme: Scheme, feeds: Feeds) -> Quantised:
            role = self.roles[len(self.made)]
            found = self.how(content, scheme, feeds)
            name = EVERYTHING if self.how is everything_int8 else str(scheme.__struct_config__.tag)
            self.fp32[role], self.made[role] = content, (name, found.content)
            if len(feeds):
                self.feeds[role] = dict(feeds[0])
            return found

        return changed


def reference_recipe() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((REFERENCE / "recipe.yaml").read_text(encoding="utf-8"))
    return content | {name: str(REFERENCE / content[name]) for name in ("checkpoint", "text_model")}


def squeezenet_recipe(data: Path) -> dict[str, Any]:
    return {
        "recipe_version": 1,
        "name": "squeezenet-test",
        "family": "squeezenet",
        "checkpoint": str((data / WEIGHTS).resolve()),
        "model_options": {"preprocessing": "square"},
        "model": {
            "licence": "as its repository states: MIT, BSD and Apache texts",
            "intended_use": "Tests of PromptRay only. A poor classifier; no use on patients.",
            "training_data": "ImageNet's photographs, then chest radiographs of children (Kermany)",
        },
        "door": {"modalities": ["CR", "DX"]},
        "relation": "exclusive",
        "findings": [{"key": name} for name in ("normal", "bacterial pneumonia", "viral pneumonia")],
    }


def write_tables(data: Path, folder: Path, parts: Mapping[str, set[int]] = PARTS) -> None:
    """Write a table of each part, ``calibration.csv`` and so on: quarters of the patients, by their hash."""
    with (data / "cxr" / "labels.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for name, quarters in parts.items():
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            table = csv.DictWriter(file, COLUMNS, restval="")
            table.writeheader()
            for row in rows:
                patient = row["patient_id"]
                if hashlib.sha256(patient.encode()).digest()[0] % 4 in quarters:
                    facts = {"file": row["file"], "patient_id": patient, "modality": "DX"}
                    known = GROUPS.get(row["group"], {}) if row["source"].startswith("kermany") else {}
                    table.writerow({**facts, "pneumonia": row["pneumonia"], **known})


def variant(
    recipe: Mapping[str, Any], name: str, schemes: Mapping[str, Any], data: Path, folder: Path
) -> tuple[Taken, dict[str, Any]]:
    """Build one variant; return its graphs, and what the gate said."""
    images = {"images": str((data / "cxr").resolve()), "source": SOURCES}
    content = {
        **recipe,
        "quantise": {**schemes, "calibration": {**images, "labels": "calibration.csv"}},
        "gate": {**images, "labels": "gate.csv"},
    }
    path, output = folder / "recipe.yaml", folder / f"{name}.bundle".replace(" ", "-")
    # A recipe is a JSON document, too; YAML's dump would share `images` by an alias, which a recipe may not.
    path.write_text(json.dumps(content), encoding="utf-8")
    taken = Taken(list(schemes), everything_int8 if name == EVERYTHING else quantise)
    reports, refusal = output / "gates", None
    try:
        build(path, output, cache=folder / "cache", change=taken.change())
    except BuildError as error:
        if not error.code.startswith("gate."):
            raise
        reports, refusal = output.with_name(f"{output.name}.gate"), error.code
    found = {}
    for each in sorted(reports.rglob("*.json")):
        found[each.stem] = said(msgspec.json.decode(each.read_bytes(), type=GateReport))
        print(f"{recipe['name']}, {name}, {each.stem}: {found[each.stem]['verdict']}")
    return taken, {"bundle_written": output.exists(), "refusal": refusal, "gates": found}


def said(gates: GateReport) -> dict[str, Any]:
    """Return the verdict, on how much, and what was not passed."""
    short = ("name", "verdict", "value", "low", "high", "bound", "finding", "patients", "patients_needed")
    return {
        "verdict": gates.verdict,
        "images": gates.images,
        "patients": gates.patients,
        "patients_needed": max((gate.patients_needed or 0 for gate in gates.gates), default=0) or None,
        "not_passed": [
            {key: getattr(gate, key) for key in short} for gate in gates.gates if gate.verdict != "passed"
        ],
        "passed": [gate.name for gate in gates.gates if gate.verdict == "passed"],
        "not_run": [each.name for each in gates.not_run if each.finding is None],
    }


def timed(graphs: Mapping[str, bytes], feed: Mapping[str, Any], title: str, rounds: int, threads: int) -> Any:
    """Return size and time of a graph's variants, fp32 first."""
    sessions = {name: open_session(content, "all", threads=threads) for name, content in graphs.items()}
    found = interleaved(
        {name: partial(each.run, None, dict(feed)) for name, each in sessions.items()},
        rounds=rounds, baseline="fp32",
    )  # fmt: skip
    report(title, found)
    size = len(graphs["fp32"])
    return {
        name: {**row, "bytes": len(graphs[name]), "size_ratio": len(graphs[name]) / size}
        for name, row in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with cxr/ and weights/")
    parser.add_argument("-o", "--output", type=Path, help="result file")
    parser.add_argument("--rounds", type=int, default=201)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    recipes = {"reference model": reference_recipe(), "SqueezeNet 1.1": squeezenet_recipe(options.data)}
    models: dict[str, Any] = {}
    for model, recipe in recipes.items():
        variants: dict[str, Any] = {}
        graphs: dict[str, dict[str, bytes]] = {}
        feeds: dict[str, Mapping[str, Any]] = {}
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            write_tables(options.data, folder)
            for name, schemes in VARIANTS[model].items():
                taken, variants[name] = variant(recipe, name, schemes, options.data, folder)
                feeds |= taken.feeds
                for role, (scheme, graph) in taken.made.items():
                    graphs.setdefault(role, {"fp32": taken.fp32[role]})[scheme] = graph
        models[model] = {
            "variants": variants,
            "graphs": {
                role: timed(each, feeds[role], f"{model}, {role}", options.rounds, options.threads)
                for role, each in graphs.items()
            },
        }
    content: dict[str, Any] = {
        "machine": {**machine(), "class": machine_class()},
        "tools": {"onnxruntime": ort.__version__, "onnx": onnx.__version__},
        "threads": options.threads,
        "rounds": options.rounds,
        "images": SOURCES,
        "models": models,
    }
    if options.output:
        save(options.output, content)


if __name__ == "__main__":
    main()
