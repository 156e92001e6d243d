"""What does a student cost, and what does it gain? Agreement with the reference model, speed at full size.

    python -m benchmarks.distil --data DATA --work WORK -o benchmarks/results/distil.json

Agreement: see `benchmarks.distil_agreement`. WORK keeps teachers and students: a second run takes them.

Speed: the image graphs of CARZero at its released size, random weights, and of the reference model, with the
teacher's tower and with students in its place, batch 1, taking turns; `ratio` is to the teacher in the same
round, with quartiles.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch
import yaml

from benchmarks.distil_agreement import agreement
from benchmarks.full_size import write_carzero
from benchmarks.timing import interleaved, machine, report, save
from promptray.calibrate.distil.checkpoint import StudentSide, new_student
from promptray.calibrate.distil.settings import Distil, read_settings
from promptray.calibrate.quantise.session import open_session
from promptray.export.families import family
from promptray.export.families.base import LoadedModel, Side
from promptray.export.onnx_graph import export_graph
from promptray.export.recipe import read_recipe
from reference.student import REFERENCE, SETTINGS

#: The teacher's own tower, taught long and patiently (Beyer et al., CVPR 2022, arXiv 2106.05237).
PATIENT = read_settings(yaml.safe_load(SETTINGS.read_text(encoding="utf-8")))
STUDENTS = (PATIENT, msgspec.structs.replace(PATIENT, layers=1))
#: At the released size: of the teacher's twelve blocks, and of timm.
TIMED = [
    *(Distil(student="teacher", layers=layers) for layers in (6, 3, 2)),
    *(Distil(student=name) for name in ("vit_tiny_patch16_224", "vit_small_patch16_224", "convnext_atto")),
]


def timed(teacher: LoadedModel, students: Sequence[Distil], rounds: int, threads: int) -> dict[str, Any]:
    """Time image graphs with the teacher's tower and with students; what students weigh does not matter."""
    graphs = {"teacher": export_graph(teacher.image, "image")}
    for settings in students:
        student = new_student(teacher, settings).requires_grad_(False)
        module = StudentSide(student, teacher.image.module).eval()
        side = Side(module, teacher.image.inputs, teacher.image.outputs)
        graphs[settings.name] = export_graph(side, "image")
    sessions = {name: open_session(content, "all", threads=threads) for name, content in graphs.items()}
    facts = teacher.preprocessing
    shape = 1, facts.channels, facts.height, facts.width
    feed = {"pixels": np.random.default_rng(0).normal(size=shape).astype(np.float32)}
    found = interleaved(
        {name: partial(each.run, None, feed) for name, each in sessions.items()},
        rounds=rounds,
        baseline="teacher",
    )
    report(f"{teacher.family}'s image side, batch 1", found)
    return {name: {**row, "bytes": len(graphs[name])} for name, row in found.items()}


def full_size() -> LoadedModel:
    """Make CARZero at its released size with random weights."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        facts = write_carzero(Path(folder))
        checkpoint, text_model = (Path(folder) / facts[key] for key in ("checkpoint", "text_model"))
        return family("carzero").load(checkpoint, text_model, {})


def reference_model() -> LoadedModel:
    """Load the committed reference model."""
    recipe = read_recipe(REFERENCE / "recipe.yaml")
    checkpoint, text_model = REFERENCE / recipe.checkpoint, REFERENCE / str(recipe.text_model)
    return family(recipe.family).load(checkpoint, text_model, recipe.model_options)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with cxr/; without it only speed is measured")
    parser.add_argument("--work", type=Path, help="folder to keep teachers and students in; needed by --data")
    parser.add_argument("-o", "--output", type=Path, help="result file; what is not measured stays as it is")
    parser.add_argument("--rounds", type=int, default=15, help="0 leaves speed out")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    if options.data and not options.work:
        parser.error("--data needs --work")
    torch.set_num_threads(options.threads)
    there = options.output and options.output.exists()
    content: dict[str, Any] = json.loads(options.output.read_text()) if there else {}
    content |= {"tools": {"torch": str(torch.__version__)}, "threads": options.threads, "gpu": "not run"}
    if options.data:
        content["agreement"] = agreement(options.data, options.work, STUDENTS)
    if options.rounds:
        content["machine"] = machine()
        content["speed"] = timed(full_size(), TIMED, options.rounds, options.threads)
        content["speed of the reference model"] = timed(
            reference_model(), STUDENTS, 10 * options.rounds, options.threads
        )
    if options.output:
        save(options.output, content)


if __name__ == "__main__":
    main()
