"""Time of building engines with TensorRT-RTX on a CPU.

    python -m benchmarks.engine_build          # writes benchmarks/results/engine_build.json

The image graph is ViT-B/16's of a published BiomedCLIP's size with random weights, fp16, for one GPU and one
profile (1 to 8 images); each build starts in a process of its own, as every build of the product does. The
time of a build depends on the machine and on its load, which the result states.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.full_size import write_biomedclip
from benchmarks.rtx_layers import build, load, typed
from benchmarks.timing import machine, save
from promptray.export.onnx_graph import export_graph

RESULT = Path(__file__).parent / "results" / "engine_build.json"


def measure(rounds: int, target: str) -> dict[str, Any]:
    """Build some times."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        side = load(folder, write_biomedclip(folder)).image
    content = typed(export_graph(side, "image"), side, "fp16").content
    seconds, whole = [], []
    for _ in range(rounds):
        started = time.perf_counter()
        built = build(content, side, target)
        whole.append(time.perf_counter() - started)
        seconds.append(built.seconds)
        print(f"{whole[-1]:.1f} s")
    return {
        "graph": "BiomedCLIP image, ViT-B/16, fp16",
        "builder": f"TensorRT-RTX {built.version}",
        "target": target,
        "machine": machine(),
        "rounds": rounds,
        "seconds": {"median": statistics.median(whole), "least": min(whole), "most": max(whole)},
        "seconds_within_tensorrt": statistics.median(seconds),
        "graph_bytes": len(content),
        "plan_bytes": len(built.plan),
    }


def main() -> None:
    """Write the result file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--target", default="8.9")
    parser.add_argument("-o", "--output", type=Path, default=RESULT)
    options = parser.parse_args()
    save(options.output, measure(options.rounds, options.target))


if __name__ == "__main__":
    main()
