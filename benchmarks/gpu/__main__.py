"""Measure models on the GPU of this machine and write ``<gpu>-<date>.json``, with the commit measured.

    python -m benchmarks.gpu [MODEL...] [-o benchmarks/results] [--work FOLDER]

Models are those of benchmarks/gpu/cases.py, by a word of their name. In order: ONNX Runtime CUDA, torch
eager, torch.compile, TensorRT. Every row says version and precision; a contestant that is not here says why.
Without a GPU nothing is written, and the exit code is 1; so it is where no engine could be measured.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.gpu.result import GpuResult, engines_ran, file_name
from benchmarks.result_file import ROOT, commit, document, today
from promptray.runtime.engines.device import device_here
from promptray.runtime.errors import PromptRayError


def main(arguments: list[str] | None = None) -> int:
    """Measure, or say that there is nothing to measure on."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "gpu", help="folder for bundles")
    parser.add_argument("--check", action="store_true", help="only say whether there is a GPU")
    options = parser.parse_args(arguments)
    try:
        device = device_here()
    except PromptRayError as error:
        print(f"not run: no GPU ({error.message})", file=sys.stderr)
        return 1
    if options.check:
        print(f"GPU: {device.title}")
        return 0
    from benchmarks.gpu.cases import chosen
    from benchmarks.gpu.contestants import gpu_facts, rows_of

    cases = chosen(options.models)
    gpu = gpu_facts(device)
    rows = [row for case in cases for row in rows_of(case, options.work, gpu)]
    result = GpuResult(commit=commit(), date=today(), gpu=gpu, rows=rows)
    path = options.output / file_name(result)
    path.write_bytes(document(result))
    print(f"wrote {path}")
    if not engines_ran(result):
        reasons = dict.fromkeys(f"{row.contestant}: {row.not_run}" for row in rows if row.not_run)
        print("no engine ran", *reasons, sep="\n  ", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
