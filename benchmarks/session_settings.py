"""Which settings of ONNX Runtime and OpenVINO are worth it for a bundle's image side, on one machine.

    python -m benchmarks.session_settings full.bundle -o benchmarks/results/session_settings.json

Every alternative takes turns with the runtime's own session, two of them in memory at a time, and must give
its features within `TOLERANCE` of their largest number. `promptray tune` measures the few of these settings
that a site can choose; here is why it is those.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from benchmarks.peers.contest import PAUSE
from benchmarks.timing import interleaved, machine, report, save
from promptray.runtime.backends.openvino_library import load_library
from promptray.runtime.bundle import Bundle
from promptray.runtime.cores import host_threads
from promptray.runtime.golden import read_golden
from promptray.runtime.preprocess import normalise

TOLERANCE = 1e-4
Call = Callable[[], list[NDArray[np.float32]]]
Set = Callable[[ort.SessionOptions], object]
#: Whether threads stop looking for work when a call is over, as the runtime has it.
STOP = "session.force_spinning_stop"


def entry(name: str, value: str) -> Set:
    return lambda options: options.add_session_config_entry(name, value)


#: What is changed of ONNX Runtime's session.
SETTINGS: dict[str, Set] = {
    "no arena": lambda options: setattr(options, "enable_cpu_mem_arena", False),
    "no memory pattern": lambda options: setattr(options, "enable_mem_pattern", False),
    "threads that go on spinning after a call": entry(STOP, "0"),
    "threads that do not spin": entry("session.intra_op.allow_spinning", "0"),
    "no prepacked weights": entry("session.disable_prepacking", "1"),
    "denormals as zero": entry("session.set_denormal_as_zero", "1"),
    "rewritten: extended": lambda options: setattr(
        options, "graph_optimization_level", ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ),
    "rewritten: basic": lambda options: setattr(
        options, "graph_optimization_level", ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    ),
    "not rewritten": lambda options: setattr(
        options, "graph_optimization_level", ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    ),
}
#: What is changed of OpenVINO's, beside float32 and the threads.
PROPERTIES: dict[str, dict[str, Any]] = {
    "OpenVINO": {"NUM_STREAMS": 1, "ENABLE_CPU_PINNING": False},
    "OpenVINO, pinned": {"NUM_STREAMS": 1, "ENABLE_CPU_PINNING": True},
    "OpenVINO, throughput": {"PERFORMANCE_HINT": "THROUGHPUT"},
}


def session(content: bytes, threads: int, change: Set = lambda options: None) -> ort.InferenceSession:
    """Open a session as the runtime does, but for one change."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4
    entry(STOP, "1")(options)
    change(options)
    return ort.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def of_session(opened: ort.InferenceSession, pixels: NDArray[np.float32]) -> Call:
    return lambda: opened.run(None, {"pixels": pixels})


def of_openvino(
    content: bytes, threads: int, pixels: NDArray[np.float32], own: Mapping[str, Any], *, fixed: bool
) -> Call:
    """Return a call of OpenVINO's; `fixed` compiles it for just these pixels' shape."""
    library = load_library()
    model = library.Core().read_model(content)
    names = [output.get_any_name() for output in model.outputs]
    if fixed:
        model.reshape({"pixels": list(pixels.shape)})
    properties = {
        "INFERENCE_PRECISION_HINT": "f32", "EXECUTION_MODE_HINT": "ACCURACY", "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads, **own,
    }  # fmt: skip
    request = library.Core().compile_model(model, "CPU", properties).create_infer_request()
    request.set_tensor("pixels", library.Tensor(pixels, shared_memory=True))

    def call() -> list[NDArray[np.float32]]:
        request.infer(share_outputs=True)
        return [np.array(request.get_tensor(name).data) for name in names]

    return call


def fused(content: bytes) -> bytes:
    """Fuse attention, GELU and residual adds ahead of time, as ONNX Runtime's own tool does for a ViT."""
    from onnxruntime.transformers.optimizer import optimize_model

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image.onnx"
        path.write_bytes(content)
        made = optimize_model(str(path), model_type="vit", opt_level=0)
        return bytes(made.model.SerializeToString())


def alternatives(content: bytes, threads: int, pixels: NDArray[np.float32]) -> dict[str, Callable[[], Call]]:
    """Return what is compared, each opened only when its turn comes."""
    found: dict[str, Callable[[], Call]] = {
        f"ONNX Runtime, {name}": lambda change=change: of_session(session(content, threads, change), pixels)  # type: ignore[misc]
        for name, change in SETTINGS.items()
    }
    for count in sorted({1, threads // 2, 2 * threads} - {0, threads}):
        found[f"ONNX Runtime, {count} threads"] = lambda count=count: of_session(  # type: ignore[misc]
            session(content, count), pixels
        )
    found["ONNX Runtime, fused ahead of time"] = lambda: of_session(session(fused(content), threads), pixels)
    for name, own in PROPERTIES.items():
        found[name] = lambda own=own: of_openvino(content, threads, pixels, own, fixed=False)  # type: ignore[misc]
    first = PROPERTIES["OpenVINO"]
    found["OpenVINO, shape fixed"] = lambda: of_openvino(content, threads, pixels, first, fixed=True)
    return found


def difference(found: list[NDArray[np.float32]], expected: list[NDArray[np.float32]]) -> float:
    """Return the largest difference, as a share of each tensor's largest number."""
    return max(
        float(np.abs(one - other).max() / np.abs(other).max())
        for one, other in zip(found, expected, strict=True)
    )


def measure(content: bytes, pixels: NDArray[np.float32], threads: int, rounds: int) -> dict[str, Any]:
    """Time every alternative against the runtime's own session."""
    usual = of_session(session(content, threads), pixels)
    expected, found = usual(), {}
    for name, opened in alternatives(content, threads, pixels).items():
        call = opened()
        off = difference(call(), expected)
        if not off <= TOLERANCE:
            raise SystemExit(f"{name} gives other features: off by {off:.2g} of their largest number")
        row = interleaved({"usual": usual, name: call}, rounds=rounds, baseline="usual", pause=PAUSE)[name]
        found[name] = {**row, "difference": off}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("bundle", type=Path)
    parser.add_argument("-o", "--output", type=Path, help="result file")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--threads", type=int, help="default: every core")
    options = parser.parse_args()

    bundle, threads = Bundle.open(options.bundle), host_threads(options.threads)
    graph = bundle.manifest.graph("image")
    if graph is None or graph.precision != "fp32":
        raise SystemExit("the bundle has no fp32 image graph")
    pixels = normalise(read_golden(bundle).pictures[:1], bundle.manifest.preprocessing)
    found = measure(bundle.read(graph.file), pixels, threads, options.rounds)
    report(f"{bundle.manifest.name}: one image, as a share of the runtime's own session", found)
    if options.output:
        versions = {"onnxruntime": ort.__version__, "openvino": load_library().__version__}
        content = {
            "machine": machine(), "model": bundle.manifest.name, "threads": threads, "rounds": options.rounds,
            "versions": versions, "image graph": found,
        }  # fmt: skip
        save(options.output, content)


if __name__ == "__main__":
    main()
