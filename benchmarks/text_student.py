"""What does a smaller text side save, and what does it cost? The reference model, and BERT-base's size.

    python -m benchmarks.text_student --data DATA -o benchmarks/results/text_student.json

Agreement: text students of the reference model (4 blocks) learn from the wordings that it was trained and
tested with and from generated ones, with logits on the shipped golden images. Wordings are divided by topic,
as in a build, and the recipe's findings are left out. The gates of a student hold it against the teacher on
the openly licensed radiographs: the recipe's findings and one wording of each held-out topic. Whether a
wording is true of an image is known of the reference model's own, so losses of AUROC are measured of those
only. The teacher was trained on these images, which matters little for its text side; its vocabulary is
small, so a real model's text is harder.

Size and time: the text graph of CARZero at its released size, random weights, with all and with fewer blocks,
fp32 and int8-dynamic, one prompt of 8 words, taking turns. Differences of random weights would mean nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from benchmarks.full_size import write_carzero
from benchmarks.timing import interleaved, machine, report, save
from promptray.calibrate.distil.text_run import distil_text, text_side
from promptray.calibrate.distil.text_settings import TextDistil
from promptray.calibrate.distil.text_student import text_student
from promptray.calibrate.distil.text_wordings import Wordings, gather
from promptray.calibrate.distil.torch_side import TorchGraph, torch_bank
from promptray.calibrate.distil.views import pixels
from promptray.calibrate.gates import LIMITS, GateData, ModelScores, run_gates
from promptray.calibrate.gates.table import gate_text
from promptray.calibrate.quantise import quantise
from promptray.calibrate.quantise.calibration_images import calibration_images
from promptray.calibrate.quantise.scheme import DynamicInt8
from promptray.calibrate.quantise.session import open_session
from promptray.export.families import family
from promptray.export.families.base import LoadedModel, Side
from promptray.export.golden_inputs import golden_inputs, read_pictures
from promptray.export.onnx_graph import export_graph
from promptray.export.recipe import read_recipe
from promptray.runtime.bound_heads import BoundHead
from promptray.runtime.text import EncodedFinding, TextEncoder
from reference.radiographs import LICENCE, SOURCE, read_radiographs
from reference.wordings import MEANINGS

REFERENCE = Path(__file__).parents[1] / "reference"
SETTINGS = TextDistil(layers=2, generated=400, held_out=24, epochs=30, rate=1e-3)
LAYERS = (3, 2, 1)
FULL_SIZE = (6, 4, 2)


def agreement(data: Path, settings: TextDistil, layers: Sequence[int]) -> dict[str, Any]:
    """Make text students of the reference model, and gate each."""
    recipe = read_recipe(REFERENCE / "recipe.yaml")
    checkpoint, text_model = REFERENCE / recipe.checkpoint, REFERENCE / str(recipe.text_model)
    teacher = family(recipe.family).load(checkpoint, text_model, recipe.model_options)
    assert teacher.text is not None
    encoder = TextEncoder(teacher.text.rule, teacher.text.tokenizer)
    prompts = {each.key: str(each.prompt) for each in recipe.findings}
    wordings = divided(settings, encoder, teacher.text.rule.templates, list(prompts.values()))
    keys = (*prompts, *(each.wording.text for each in wordings.held_out))
    shown = read_radiographs(data)
    paths = [each.path for each in shown]
    read = calibration_images(paths, recipe.door, teacher.preprocessing, source=SOURCE)
    graph = TorchGraph(teacher.image)
    images = [
        graph.run({"pixels": pixels([each], teacher.preprocessing).numpy()}) for each in read.feeds.pictures
    ]
    encoded = [encoder.encode_finding([text]) for text in prompts.values()]
    encoded += [EncodedFinding((each,)) for each in wordings.held_out]
    theirs = _scores(teacher, encoded, images)
    true_of: list[tuple[str, ...] | None] = [MEANINGS[key].true_of for key in prompts]
    true_of += [_true_of().get(each.wording.text) for each in wordings.held_out]
    labels = [[math.nan if true is None else each.label in true for true in true_of] for each in shown]
    golden = pixels(
        list(read_pictures(golden_inputs(None, None), recipe.door, teacher.preprocessing)),
        teacher.preprocessing,
    )
    found: dict[str, Any] = {}
    for count in layers:
        asked = msgspec.structs.replace(settings, layers=count)
        with tempfile.TemporaryDirectory() as folder:
            facts = distil_text(
                teacher, wordings, golden, asked, Path(folder), lambda *said: print(*said[:2])
            )
            side = text_side(teacher, Path(folder))
        student = dataclasses.replace(teacher, text=dataclasses.replace(teacher.text, side=side))
        ours = _scores(student, encoded, images)
        gate = GateData(
            keys,
            ModelScores("teacher", theirs[0], maps=theirs[1]),
            ModelScores(f"text student of {count} blocks", ours[0], maps=ours[1]),
            labels=np.array(labels, float),
            patients=np.array([each.patient for each in shown]),
        )
        result = run_gates(gate, LIMITS["student"])
        print(gate_text(result))
        found[f"{count} of {facts.of} blocks"] = {
            "kept": facts.kept,
            "best_epoch": facts.best,
            "validation": {"first": facts.history[0].val_terms, "best": facts.history[facts.best].val_terms},
            "text_graph_bytes": len(export_graph(side, "text")),
            "verdict": result.verdict,
            "gates": msgspec.to_builtins(result.gates),
        }
    return {
        "licence": f"{SOURCE}, {LICENCE}",
        "settings": msgspec.to_builtins(settings),
        "wordings": {"learned": len(wordings.train), "watching": len(wordings.val), "gated": len(keys)},
        "images": len(shown),
        "teacher_text_graph_bytes": len(export_graph(teacher.text.side, "text")),
        "students": found,
    }


def divided(
    settings: TextDistil, encoder: TextEncoder, templates: Sequence[str], excluded: Sequence[str]
) -> Wordings:
    """Divide the reference model's own wordings and generated ones as a build does."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "wordings.txt"
        file.write_text("\n".join(_true_of()), encoding="utf-8")
        return gather(settings, encoder, file=file, templates=templates, excluded=excluded)


def _true_of() -> dict[str, tuple[str, ...]]:
    """Return the classes that each of the reference model's own wordings is true of."""
    return {text: each.true_of for each in MEANINGS.values() for text in (*each.training, *each.held_out)}


def _scores(model: LoadedModel, findings: Sequence[EncodedFinding], images: Sequence[Any]) -> tuple[Any, Any]:
    head = model.heads[0]
    bound = BoundHead.of(TorchGraph(head.side), torch_bank(model, head, findings).batches())
    logits, maps = zip(*(bound.run(each) for each in images), strict=True)
    return np.concatenate(logits), np.concatenate([each for each in maps if each is not None])


def full_size(rounds: int, threads: int) -> dict[str, Any]:
    """Measure the text graph of CARZero's released size with all and with fewer blocks."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        facts = write_carzero(Path(folder))
        checkpoint, text_model = (Path(folder) / facts[key] for key in ("checkpoint", "text_model"))
        teacher = family("carzero").load(checkpoint, text_model, {})
    assert teacher.text is not None
    example = TextEncoder(teacher.text.rule, teacher.text.tokenizer).encode(
        "There is a small left pleural effusion today."
    )
    sides: dict[str, Side] = {"12 blocks": teacher.text.side}
    for count in FULL_SIZE:
        sides[f"{count} blocks"] = text_student(teacher, count, example.arrays).side
    graphs: dict[str, bytes] = {}
    for name, side in sides.items():
        side.module.requires_grad_(False)
        graphs[f"{name}, fp32"] = export_graph(side, "text")
        graphs[f"{name}, int8-dynamic"] = quantise(
            graphs[f"{name}, fp32"], DynamicInt8(), [example.arrays]
        ).content
    del teacher, sides
    sessions = {name: open_session(content, "all", threads=threads) for name, content in graphs.items()}
    found = interleaved(
        {name: partial(each.run, None, dict(example.arrays)) for name, each in sessions.items()},
        rounds=rounds,
        baseline="12 blocks, fp32",
    )
    report("CARZero's text graph at its released size, one prompt", found)
    whole = len(graphs["12 blocks, fp32"])
    return {
        name: {**row, "bytes": len(graphs[name]), "bytes_ratio": len(graphs[name]) / whole}
        for name, row in found.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, help="folder with cxr/; without it only size and time are measured"
    )
    parser.add_argument("-o", "--output", type=Path, help="result file")
    parser.add_argument("--epochs", type=int, default=SETTINGS.epochs)
    parser.add_argument("--layers", type=int, nargs="+", default=list(LAYERS))
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-full-size", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    facts = {
        "machine": machine(),
        "torch": str(torch.__version__),
        "threads": options.threads,
        "gpu": "not run",
    }
    content: dict[str, Any] = {}
    if options.output and options.output.exists():  # a part that is not measured again stays
        content = json.loads(options.output.read_text(encoding="utf-8"))
    if options.data:
        settings = msgspec.structs.replace(SETTINGS, epochs=options.epochs)
        content["agreement"] = {**facts, **agreement(options.data, settings, options.layers)}
    if not options.no_full_size:
        content["full_size"] = {**facts, "graphs": full_size(options.rounds, options.threads)}
    if options.output:
        save(options.output, content)


if __name__ == "__main__":
    main()
