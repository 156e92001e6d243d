"""Which quantisation pays on this machine? Time, size and difference to fp32, graph by graph.

    python -m benchmarks.quantisation BUNDLE [--data DIR] -o benchmarks/results/quantisation.json

Graphs: the reference model's image and text side; a ViT-B/16 (CARZero's image side), its text side and a
ConvNeXt-Base with random weights, whose differences say how much arithmetic is lost and nothing of accuracy;
with ``--data``, a trained SqueezeNet, and for the reference model images that no range was taken from.

Time is one call with batch 1, the schemes taking turns; `ratio` is to fp32 in the same round, with quartiles.
Differences are those of what ran: ONNX Runtime with all optimisations. ``error`` is the root mean square of
the difference over that of fp32's outputs; where there are scores, ``score_max`` is in logits beside
``score_std``, their spread over the images. ``sensitivity`` is of int8 Q/DQ, one block at a time.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import onnxruntime as ort

from benchmarks.timing import interleaved, machine, report, save
from promptray.calibrate.evaluation_table import Section
from promptray.calibrate.quantise import (
    ConvolutionInt8,
    DynamicInt8,
    Float16,
    Int8,
    Prepared,
    Scheme,
    WeightOnly,
    quantise,
)
from promptray.calibrate.quantise.calibration_images import ImageFeeds, calibration_images
from promptray.calibrate.quantise.feeds import text_feeds
from promptray.calibrate.quantise.observe import Feeds
from promptray.calibrate.quantise.sensitivity import ImageScores, sensitivity
from promptray.calibrate.quantise.session import open_session
from promptray.export.families import family
from promptray.export.families.base import LoadedModel, Side
from promptray.export.onnx_graph import export_graph
from promptray.runtime.backends.onnxruntime import OnnxRuntimeCpu
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.image_rules import Door, Greyscale, Normalise, Preprocessing, Squash
from promptray.runtime.bundle.manifest import TensorFacts
from promptray.runtime.golden import read_golden
from promptray.runtime.graphs import Graphs, own_bank
from promptray.runtime.packs import read_pack
from promptray.runtime.text import TextEncoder

SCHEMES: dict[str, Scheme] = {
    "int8 Q/DQ": Int8(),
    "int8 Q/DQ, smoothed": Int8(smooth=0.5),
    "int8 convolutions": ConvolutionInt8(),
    "int8 dynamic": DynamicInt8(),
    "8-bit weights": WeightOnly(bits=8),
    "4-bit weights": WeightOnly(bits=4),
    "fp16": Float16(),
}
SENSITIVITY = Int8()
CALIBRATION = 64


@dataclass
class Case:
    """A graph with inputs to calibrate and others to compare with."""

    name: str
    content: bytes
    calibration: Feeds
    inputs: Feeds
    score: Callable[[bytes], Any] | None = None


def reference_cases(bundle: Bundle, data: Path | None) -> Iterator[Case]:
    manifest = bundle.manifest
    golden = ImageFeeds(read_golden(bundle).pictures, manifest.preprocessing)
    calibration, inputs = golden[:8], golden[8:]
    if data:
        images = [path for path, row in labelled(data) if row["source"] == "kermany-guangzhou"]
        read = calibration_images(images, manifest.door, manifest.preprocessing, source="kermany-guangzhou")
        calibration, inputs = read.feeds[:CALIBRATION], read.feeds[CALIBRATION:]
    (only,) = manifest.heads
    graphs_of = Graphs(bundle, OnnxRuntimeCpu(threads=2), prompts_per_batch=None)
    head = graphs_of.bind(only, own_bank(bundle, only))
    graphs = {graph.role: bundle.read(graph.file) for graph in manifest.graphs}
    yield Case("reference ViT", graphs["image"], calibration, inputs, ImageScores(head, inputs, "all"))
    assert manifest.text is not None
    encoder = TextEncoder(manifest.text, bundle.read(manifest.text.tokenizer))
    yield Case("reference text", graphs["text"], *prompts(encoder))


def prompts(encoder: TextEncoder) -> tuple[Feeds, Feeds]:
    """Encode the prompts of a pack: to calibrate with, and others to compare with."""
    findings = read_pack("padchest192").findings
    feeds = text_feeds([encoder.encode_finding(each.prompts) for each in findings])
    return feeds[:CALIBRATION], feeds[CALIBRATION : 2 * CALIBRATION]


def full_size_cases(name: str, pictures: Feeds) -> Iterator[Case]:
    import torch

    from benchmarks.full_size import FAMILIES

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        torch.manual_seed(0)
        facts = FAMILIES[name](folder)
        text = folder / facts["text_model"] if "text_model" in facts else None
        model: LoadedModel = family(name).load(
            folder / facts["checkpoint"], text, facts.get("model_options", {})
        )
    shown = {"carzero": "ViT-B/16, random weights", "convnext": "ConvNeXt-Base, random weights"}[name]
    for key, parameter in model.image.module.named_parameters():
        if key.endswith("gamma"):  # it begins at 1e-6, where no block would have any effect
            torch.nn.init.constant_(parameter, 0.2)
    yield Case(shown, export_graph(model.image, "image"), pictures[:8], pictures[8:12])
    if model.text is not None:
        encoder = TextEncoder(model.text.rule, model.text.tokenizer)
        calibration, inputs = prompts(encoder)
        yield Case(
            "BERT-base, random weights", export_graph(model.text.side, "text"), calibration[:16], inputs[:8]
        )


def squeezenet_case(data: Path) -> Case:
    """The trained SqueezeNet, held to its published logits first."""
    import safetensors.torch

    from promptray.export.torchvision_guard import ensure_torchvision_imports

    ensure_torchvision_imports()
    from torchvision.models import squeezenet1_1

    folder = data / "weights" / "squeezenet1_1-kermany3"
    facts = json.loads((folder / "model.json").read_text(encoding="utf-8"))["preprocessing"]
    module = squeezenet1_1(num_classes=3).eval()
    module.load_state_dict(safetensors.torch.load_file(folder / "model.safetensors"))

    class Logits(type(module)):  # type: ignore[misc]
        def forward(self, pixels: Any) -> Any:
            return (super().forward(pixels),)

    module.__class__ = Logits
    size = facts["resize"][0]
    side = Side(
        module,
        [TensorFacts(name="pixels", dtype="float32", dims=["batch", 3, size, size])],
        [TensorFacts(name="logits", dtype="float32", dims=["batch", 3])],
    )
    content = export_graph(side, "image")
    preprocessing = Preprocessing(
        greyscale=Greyscale(), steps=[Squash(size=size, interpolation="bilinear")], channels=3,
        normalise=Normalise(mean=facts["mean"], std=facts["std"]), height=size, width=size,
    )  # fmt: skip
    with (folder / "reference_logits_dev.csv").open(encoding="utf-8") as file:
        published = {row["image_id"]: row for row in csv.DictReader(file)}
    rows = [(path, row) for path, row in labelled(data) if row["source"] == "kermany-guangzhou"]
    feeds = calibration_images(
        [path for path, _ in rows], Door(modalities=["CR"]), preprocessing, source="kermany-guangzhou"
    ).feeds
    score = logits_of(feeds[CALIBRATION:])
    names = [key for key in next(iter(published.values())) if key != "image_id"][-3:]
    expected = [[float(published[row["image_id"]][name]) for name in names] for _, row in rows[CALIBRATION:]]
    error = float(np.abs(score(content) - np.array(expected)).max())
    print(f"\nSqueezeNet: greatest difference to its published logits {error:.2g}")
    if not error < 1e-2:
        raise SystemExit("the SqueezeNet graph does not give its published logits")
    return Case("SqueezeNet 1.1, trained", content, feeds[:CALIBRATION], feeds[CALIBRATION:], score)


def logits_of(feeds: Feeds) -> Callable[[bytes], Any]:
    def score(content: bytes) -> Any:
        session = open_session(content, "all")
        return np.concatenate([session.run(["logits"], dict(feed))[0] for feed in feeds])

    return score


def labelled(data: Path) -> list[tuple[Path, Mapping[str, str]]]:
    """Images of a folder of labelled radiographs; in an order that mixes patients, the same every time."""
    with (data / "cxr" / "labels.csv").open(encoding="utf-8") as file:
        rows = sorted(csv.DictReader(file), key=lambda row: row["sha256"])
    return [(data / "cxr" / row["file"], row) for row in rows]


def outputs(session: ort.InferenceSession, feeds: Feeds) -> list[list[Any]]:
    return [session.run(None, dict(feed)) for feed in feeds]


def relative_error(found: Sequence[Sequence[Any]], expected: Sequence[Sequence[Any]]) -> float:
    """Return the greatest of the outputs' errors: root mean squares over all inputs."""
    errors = []
    for ours, theirs in zip(zip(*found, strict=True), zip(*expected, strict=True), strict=True):
        size = sum(float((b.astype(np.float64) ** 2).sum()) for b in theirs)
        off = sum(float(((a - b).astype(np.float64) ** 2).sum()) for a, b in zip(ours, theirs, strict=True))
        errors.append((off / size) ** 0.5 if size else 0.0)
    return max(errors)


def run(case: Case, rounds: int, threads: int) -> dict[str, Any]:
    graphs = {"fp32": case.content}
    for name, scheme in SCHEMES.items():
        made = quantise(case.content, scheme, case.calibration)
        if made.report.size_ratio < 0.7:  # or it left most of the graph as it is: convolutions of a ViT
            graphs[name] = made.content
    sessions = {name: open_session(content, "all", threads=threads) for name, content in graphs.items()}
    feed = dict(case.inputs[0])
    times = interleaved(
        {name: partial(session.run, None, feed) for name, session in sessions.items()},
        rounds=rounds, baseline="fp32",
    )  # fmt: skip
    few = case.inputs[:8]
    expected = outputs(sessions["fp32"], few)
    logits = case.score(case.content) if case.score else None
    report(case.name, times)
    print(f"  {'':34} {'size':>10} {'error':>9} {'score max':>10} {'score mean':>10}")
    found = {}
    for name, content in graphs.items():
        row: dict[str, float] = {
            **times[name],
            "bytes": len(content),
            "size_ratio": len(content) / len(case.content),
            "error": relative_error(outputs(sessions[name], few), expected),
        }
        if logits is not None and case.score:
            difference = np.abs(case.score(content) - logits)
            row |= {"score_max": float(difference.max()), "score_mean": float(difference.mean())}
        scores = "".join(f" {row[key]:10.4f}" for key in ("score_max", "score_mean") if key in row)
        print(f"  {name:34} {row['size_ratio']:10.3f} {row['error']:9.4f}{scores}")
        found[name] = row
    facts: dict[str, Any] = {"schemes": found, "calibration_inputs": len(case.calibration)}
    if logits is not None:
        facts |= {"images": len(logits), "score_std": float(logits.std(axis=0).mean())}
    if (score_graph := case.score) is not None:
        prepared = Prepared(case.content, SENSITIVITY, case.calibration)

        def score(on: Collection[str]) -> Any:
            keep = set(prepared.groups) - set(on)
            return score_graph(prepared.make(keep=keep).content if on else case.content)

        ranked = sensitivity(prepared.groups, score)
        facts["sensitivity"] = msgspec.to_builtins(ranked)
        print_section(ranked.table())
    return facts


def print_section(section: Section) -> None:
    print(f"\n{section.title}")
    for row in (section.columns, *section.rows):
        print("  " + f"{row[0]:44}" + "".join(f"{cell:>18}" for cell in row[1:]))


def instructions() -> list[str]:
    """Return what of this CPU decides which integer kernels ONNX Runtime takes."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return []
    flags = set(next((line for line in text.splitlines() if line.startswith("flags")), "").split())
    return sorted(flags & {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8"})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path, help="bundle of the reference model")
    parser.add_argument("--data", type=Path, help="folder with cxr/ and weights/")
    parser.add_argument("--only", nargs="*", choices=["reference", "squeezenet", "carzero", "convnext"])
    parser.add_argument("-o", "--output", type=Path, help="result file")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()

    wanted = options.only or ["reference", "carzero", "convnext", *(["squeezenet"] if options.data else [])]
    bundle = Bundle.open(options.bundle)
    pictures = ImageFeeds(read_golden(bundle).pictures, bundle.manifest.preprocessing)
    content: dict[str, Any] = {
        "machine": {**machine(), "instructions": instructions()},
        "tools": {"onnxruntime": ort.__version__, "onnx": onnx.__version__},
        "threads": options.threads,
        "rounds": options.rounds,
        "graphs": {},
    }
    for name in wanted:
        if name == "reference":
            cases: Iterator[Case] = reference_cases(bundle, options.data)
        elif name == "squeezenet":
            cases = iter([squeezenet_case(options.data)])
        else:
            cases = full_size_cases(name, pictures)
        for case in cases:
            content["graphs"][case.name] = run(case, options.rounds, options.threads)
    if options.output:
        save(options.output, content)


if __name__ == "__main__":
    main()
