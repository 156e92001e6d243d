"""What does a student cost, and what does it gain? Agreement with the reference model, speed at full size.

    python -m benchmarks.distil --data DATA -o benchmarks/results/distil.json

Agreement: a student of the reference model's tower learns from half of the patients of the openly licensed
radiographs, and the gates hold it against the teacher on the other half. Both halves were in the teacher's
own training, so the AUROCs say nothing of new patients; what is measured is whether the student does as the
teacher does. The teacher is tiny and the student is no faster: speed is the other part's.

Speed: the image graphs of CARZero at its released size and of students in its place, random weights, batch 1,
taking turns; `ratio` is to the teacher in the same round, with quartiles.
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from benchmarks.full_size import write_carzero
from benchmarks.timing import interleaved, machine, report, save
from promptray.calibrate.distil.checkpoint import StudentSide, new_student, student_model
from promptray.calibrate.distil.images import DistilImages
from promptray.calibrate.distil.run import distil
from promptray.calibrate.distil.settings import Augmentation, Distil
from promptray.calibrate.distil.views import pixels
from promptray.calibrate.gates import LIMITS, GateData, ModelScores, run_gates
from promptray.calibrate.gates.table import gate_text
from promptray.calibrate.quantise.calibration_images import CalibrationImages, calibration_images
from promptray.calibrate.quantise.session import open_session
from promptray.export.families import family
from promptray.export.families.base import Side
from promptray.export.onnx_graph import export_graph
from promptray.export.recipe import read_recipe
from promptray.runtime.text import TextEncoder
from reference.radiographs import LICENCE, SOURCE, Radiograph, read_radiographs

REFERENCE = Path(__file__).parents[1] / "reference"
STUDENT = Distil(
    student="test_vit", epochs=60, batch=16, rate=2e-3, augment=Augmentation(views=4), validation=0.15
)
TIMED = ("vit_tiny_patch16_224", "vit_small_patch16_224", "convnext_atto")


def agreement(data: Path, settings: Distil) -> dict[str, Any]:
    """Distil the reference model on half of the patients, and gate on the others."""
    recipe = read_recipe(REFERENCE / "recipe.yaml")
    teacher = family(recipe.family).load(
        REFERENCE / recipe.checkpoint, REFERENCE / str(recipe.text_model), recipe.model_options
    )
    shown = read_radiographs(data)
    held = np.array([hashlib.sha256(each.patient.encode()).digest()[0] % 2 == 1 for each in shown])
    read = calibration_images(
        [each.path for each in shown], recipe.door, teacher.preprocessing, source=SOURCE
    )
    assert teacher.text is not None
    encoder = TextEncoder(teacher.text.rule, teacher.text.tokenizer)
    prompts = {each.key: str(each.prompt) for each in recipe.findings}
    findings = {"findings": {key: encoder.encode_finding([text]) for key, text in prompts.items()}}
    with tempfile.TemporaryDirectory() as folder:
        images = learned(read, shown, ~held)
        facts = distil(
            teacher, findings, settings, images, Path(folder), lambda stage, said, _: print(stage, said)
        )
        student = student_model(teacher, Path(folder))
    rows = np.flatnonzero(held)
    taken = pixels([read.feeds.pictures[row] for row in rows], teacher.preprocessing)
    chosen = list(findings["findings"].values())
    theirs, ours = (model.heads[0].reference(taken, chosen) for model in (teacher, student))
    held_data = GateData(
        tuple(prompts),
        ModelScores("teacher", theirs.logits, maps=theirs.maps),
        ModelScores("student", ours.logits, maps=ours.maps),
        labels=np.array([truth(shown[row], list(prompts)) for row in rows]),
        patients=np.array([shown[row].patient for row in rows]),
    )
    found = run_gates(held_data, LIMITS["student"])
    print(gate_text(found))
    return {
        "licence": f"{SOURCE}, {LICENCE}",
        "settings": msgspec.to_builtins(settings),
        "images": {"learned": int((~held).sum()), "held out": int(held.sum())},
        "best_epoch": facts.best,
        "first": msgspec.to_builtins(facts.history[0]),
        "last": msgspec.to_builtins(facts.history[facts.best]),
        "verdict": found.verdict,
        "gates": msgspec.to_builtins(found.gates),
    }


def learned(read: CalibrationImages, shown: list[Radiograph], kept: Any) -> DistilImages:
    rows = np.flatnonzero(kept)
    pictures = read.feeds.pictures[rows]
    hashes = [hashlib.sha256(each.tobytes()).hexdigest() for each in pictures]
    digest = hashlib.sha256(";".join(hashes).encode()).hexdigest()
    facts = msgspec.structs.replace(read.facts, images=len(rows), sha256=digest)
    return DistilImages(pictures, facts, hashes, np.array([shown[row].patient for row in rows]))


def truth(shown: Radiograph, keys: list[str]) -> list[float]:
    """Return what a label says of each finding; a pneumonia is known to be bacterial or viral."""
    true = {"normal": {"no pneumonia"}}.get(shown.label, {"pneumonia", f"{shown.label} pneumonia"})
    return [float(key in true) for key in keys]


def speed(rounds: int, threads: int) -> dict[str, Any]:
    """Time image graphs of the released size, with the teacher's tower and with students."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        facts = write_carzero(Path(folder))
        names = (Path(folder) / facts[key] for key in ("checkpoint", "text_model"))
        teacher = family("carzero").load(*names, {})
    graphs = {"ViT-B/16, the teacher": export_graph(teacher.image, "image")}
    for name in TIMED:
        student = new_student(teacher, Distil(student=name)).requires_grad_(False)
        module = StudentSide(student, teacher.image.module).eval()
        side = Side(module, teacher.image.inputs, teacher.image.outputs)
        graphs[name] = export_graph(side, "image")
    sessions = {name: open_session(content, "all", threads=threads) for name, content in graphs.items()}
    feed = {"pixels": np.random.default_rng(0).normal(size=(1, 3, 224, 224)).astype(np.float32)}
    found = interleaved(
        {name: (lambda each=each: each.run(None, feed)) for name, each in sessions.items()},
        rounds=rounds,
        baseline="ViT-B/16, the teacher",
    )
    report("CARZero's image side at its released size, batch 1", found)
    return {name: {**row, "bytes": len(graphs[name])} for name, row in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with cxr/; without it only speed is measured")
    parser.add_argument("-o", "--output", type=Path, help="result file")
    parser.add_argument("--epochs", type=int, default=STUDENT.epochs)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    content: dict[str, Any] = {
        "machine": machine(),
        "tools": {"torch": str(torch.__version__)},
        "threads": options.threads,
        "gpu": "not run",
    }
    if options.data:
        settings = msgspec.structs.replace(STUDENT, epochs=options.epochs)
        content["agreement"] = agreement(options.data, settings)
    content["speed"] = speed(options.rounds, options.threads)
    if options.output:
        save(options.output, content)


if __name__ == "__main__":
    main()
