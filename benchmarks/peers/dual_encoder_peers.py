"""How others score one image with a dual encoder on a processor, each as its documentation tells a user to.

Every function returns the call that is timed: pixels on the host in, float32 scores (1, N) on the host out.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.peers.contest import Contestant, NotRun, Scores
from benchmarks.peers.open_clip_model import VERSION, ImageScores
from benchmarks.peers.result import Kind
from promptray.runtime.backends.openvino_library import load_library
from promptray.runtime.errors import ScoringError

Pixels = NDArray[np.float32]
ONNX = "model.onnx"


def eager(module: ImageScores, pixels: Pixels) -> Contestant:
    """open_clip as it is."""
    return Contestant("open_clip, eager", "peer", VERSION, _in_torch(module, pixels))


def compiled(module: ImageScores, pixels: Pixels) -> Contestant:
    """torch.compile's defaults; compiles now.

    Raises
    ------
    NotRun
        Where it cannot, for want of a C++ compiler above all.
    """
    call = _in_torch(torch.compile(module), pixels)
    try:
        call()
    except (RuntimeError, OSError) as error:
        raise NotRun(f"{type(error).__name__}: {str(error).splitlines()[0]}") from error
    return Contestant("open_clip, torch.compile", "peer", VERSION, call)


def with_texts(model: nn.Module, ids: Tensor, pixels: Pixels) -> Contestant:
    """open_clip's ``model(image, text)``: every text is encoded again for every image."""

    @torch.inference_mode()
    def score() -> Scores:
        image, texts, scale = model(torch.from_numpy(pixels), ids)[:3]
        scores: Scores = (scale * image @ texts.T).numpy()
        return scores

    return Contestant("open_clip, eager, texts in every call", "with texts", VERSION, score)


def export(module: ImageScores, folder: Path) -> Path:
    """Export with torch's defaults; return the ONNX file, which the next three take."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ONNX
    size = module.visual.image_size
    torch.onnx.export(
        module, (torch.zeros(1, 3, *size),), path, input_names=["pixels"], output_names=["logits"],
        verbose=False,
    )  # fmt: skip
    return path


def onnxruntime_defaults(path: Path, pixels: Pixels, threads: int) -> Contestant:
    """ONNX Runtime with its default settings."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def score() -> Scores:
        (scores,) = session.run(None, {"pixels": pixels})
        return np.asarray(scores)

    return Contestant("ONNX Runtime, defaults", "peer", ort.__version__, score)


def openvino_defaults(path: Path, pixels: Pixels, threads: int, *, fp32: bool) -> Contestant:
    """OpenVINO tuned for latency, in fp32 or in the precision it prefers on this processor.

    Raises
    ------
    NotRun
        Where it is not installed, or prefers fp32 itself.
    """
    try:
        openvino: Any = load_library()
    except ScoringError as error:
        raise NotRun("openvino is not installed") from error
    settings: dict[str, object] = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads}
    if fp32:
        settings["INFERENCE_PRECISION_HINT"] = "f32"
    compiled_model = openvino.compile_model(str(path), "CPU", settings)
    precision = compiled_model.get_property("INFERENCE_PRECISION_HINT").get_type_name()
    if not fp32 and precision == "f32":
        raise NotRun("its default precision on this processor is fp32: it is the row before")
    request = compiled_model.create_infer_request()

    def score() -> Scores:
        scores: Scores = request.infer({"pixels": pixels})[0]
        return scores

    name = f"OpenVINO, {'fp32' if fp32 else f'defaults ({precision})'}"
    kind: Kind = "peer" if fp32 else "other precision"
    return Contestant(name, kind, openvino.__version__.partition("-")[0], score)


def optimum(path: Path, pixels: Pixels, threads: int) -> Contestant:
    """Optimum's class for a graph of one's own.

    Raises
    ------
    NotRun
        Where it is not installed.
    """
    try:
        version = importlib.metadata.version("optimum-onnx")
    except importlib.metadata.PackageNotFoundError as error:
        here = importlib.metadata.version("transformers")
        raise NotRun(
            f"optimum-onnx is not installed: it needs transformers below 4.58, here is {here}"
        ) from error
    library: Any = importlib.import_module("optimum.onnxruntime")
    # It wants a configuration of transformers beside the graph.
    (path.parent / "config.json").write_text(json.dumps({"model_type": "bert"}), encoding="utf-8")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    model = library.ORTModelForCustomTasks.from_pretrained(
        path.parent, file_name=path.name, session_options=options, provider="CPUExecutionProvider"
    )

    def score() -> Scores:
        scores: Scores = model(pixels=pixels)["logits"]
        return scores

    return Contestant("Optimum", "peer", f"optimum-onnx {version}", score)


def _in_torch(module: Callable[[Tensor], Tensor], pixels: Pixels) -> Callable[[], Scores]:
    @torch.inference_mode()
    def score() -> Scores:
        scores: Scores = module(torch.from_numpy(pixels)).numpy()
        return scores

    return score
