"""Whether a model whose quantisation fails its gates passes when it learned while quantised.

    python -m benchmarks.qad --data DATA -o benchmarks/results/qad.json

The reference model and a trained SqueezeNet, each quantised as it is (`int8-qdq`), and after its own tower,
all layers of it, learned under that quantisation from fp32 answers. The reference model a second time with
ranges by entropy, which cost it more. Both have the same images, a quarter of
the patients, for ranges and to learn from; the gates of both are held on the others, against the original in
fp32, with the limits of int8. Both models saw some of these images in their training: what is measured is
agreement with fp32, nothing of new patients.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import torch

from benchmarks.quantised_bundles import (
    INT8,
    SOURCES,
    reference_recipe,
    squeezenet_recipe,
    variant,
    write_tables,
)
from benchmarks.timing import machine, save
from promptray.calibrate.gates.report import GateReport
from promptray.runtime.machine_class import machine_class

#: Less than for a new student: the tower is nearly there. Many images watch, since there are few of them.
LEARN = {
    "student": "teacher",
    "layers": "all",
    "simulate": {"from": 0.0},
    "batch": 8,
    "rate": 3e-5,
    "weight_decay": 0.0,
    "augment": {"views": 4},
    "validation": 0.3,
}


def compared(
    recipe: dict[str, Any], scheme: dict[str, Any], data: Path, learn: dict[str, Any]
) -> dict[str, Any]:
    """Build a model as it is and learned, and return what the gates said of both."""
    images = {"images": str((data / "cxr").resolve()), "labels": "calibration.csv", "source": SOURCES}
    found = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_tables(data, folder)
        for name, section in (("as it is", {}), ("learned", {"distil": {**learn, **images}})):
            said = variant({**recipe, **section}, name, {"image": scheme}, data, folder)[1]
            found[name] = {key: said[key] for key in ("bundle_written", "refusal")} | of_gates(folder, name)
    return found


def of_gates(folder: Path, name: str) -> dict[str, Any]:
    """Return verdict, bound, value and interval of every gate of a variant's one head."""
    output = folder / f"{name}.bundle".replace(" ", "-")
    beside = output.with_name(f"{output.name}.gate")
    (path,) = (output / "gates" if output.exists() else beside).rglob("head-*.json")
    report = msgspec.json.decode(path.read_bytes(), type=GateReport)
    facts = ("verdict", "bound", "value", "low", "high", "finding", "patients_needed")
    gates = {gate.name: {key: getattr(gate, key) for key in facts} for gate in report.gates}
    for gate in report.gates:
        print(f"  {gate.name:18} {gate.verdict:13} {gate.value} ({gate.low} to {gate.high})", flush=True)
    return {
        "verdict": report.verdict,
        "images": report.images,
        "patients": report.patients,
        "gates": gates,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with cxr/ and weights/")
    parser.add_argument("-o", "--output", type=Path, help="result file")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    learn = {**LEARN, "epochs": options.epochs}
    squeezenet, reference = squeezenet_recipe(options.data), reference_recipe()
    cases = {
        "SqueezeNet 1.1": (squeezenet, INT8),
        "reference model": (reference, INT8),
        "reference model, ranges by entropy": (reference, {**INT8, "calibration": "entropy"}),
    }
    content: dict[str, Any] = {
        "machine": {**machine(), "class": machine_class()},
        "tools": {"torch": str(torch.__version__)},
        "threads": options.threads,
        "gpu": "not run",
        "images": SOURCES,
        "learned with": learn,
        "models": {name: compared(*case, options.data, learn) for name, case in cases.items()},
    }
    if options.output:
        save(options.output, content)


if __name__ == "__main__":
    main()
