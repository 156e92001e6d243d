"""Tiny teachers, pictures for them and quick settings, for tests of distillation."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from promptray.calibrate.distil.images import DistilImages
from promptray.calibrate.distil.run import distil
from promptray.calibrate.distil.settings import Distil, read_settings
from promptray.calibrate.distil.teacher import Findings
from promptray.calibrate.distil.torch_side import sides_reference
from promptray.export.families import family
from promptray.export.families.base import LoadedModel, Reference, Side, tensor
from promptray.export.families.classifier import describe_classifier
from promptray.runtime.bundle.calibration_set import CalibrationSet
from promptray.runtime.bundle.image_rules import Greyscale, Normalise, Preprocessing, Squash
from promptray.runtime.bundle.manifest import MapFacts
from promptray.runtime.text import EncodedFinding, TextEncoder
from tests import asg_tiny, carzero_tiny, convnext_tiny, open_clip_tiny

SETTINGS: dict[str, Any] = {
    "student": "test_vit",
    "epochs": 3,
    "batch": 8,
    "rate": 2e-3,
    "augment": {"views": 2},
    "validation": 0.25,
}


def carzero() -> LoadedModel:
    checkpoint = carzero_tiny.FOLDER / "CARZero_best_model.ckpt"
    return family("carzero").load(checkpoint, carzero_tiny.FOLDER / "text_model", {})


def asg(*heads: str) -> LoadedModel:
    return family("asg").load(asg_tiny.CHECKPOINT, asg_tiny.TEXT_MODEL, {"heads": list(heads)})


def convnext() -> LoadedModel:
    checkpoint = convnext_tiny.FOLDER / convnext_tiny.CHECKPOINTS["torchvision"]
    return family("convnext").load(checkpoint, None, {"preprocessing": "squash"})


class SmallSide(nn.Module):
    """pixels (B, 3, 32, 32) -> image_vector (B, 8), patch_vectors (B, 16, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = nn.Conv2d(3, 8, 8, stride=8)

    def encode(self, pixels: Tensor) -> tuple[Tensor]:
        return (self.tower(pixels).relu().flatten(2).transpose(1, 2),)

    def finish(self, patches: Tensor) -> tuple[Tensor, Tensor]:
        return patches.mean(dim=1), patches

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        return self.finish(*self.encode(pixels))


def _no_original(*_: object) -> Reference:
    raise AssertionError("the sides are the original")


def small(*, seed: int = 1, scale: float = 1.0) -> LoadedModel:
    """A classifier of three classes that is distilled in a second."""
    torch.manual_seed(seed)
    side = SmallSide().eval().requires_grad_(False)
    outputs = [tensor("image_vector", "batch", 8), tensor("patch_vectors", "batch", 16, 8)]
    model = describe_classifier(
        "small",
        Side(side, [tensor("pixels", "batch", 3, 32, 32)], outputs),
        scale * torch.randn(3, 8),
        torch.zeros(3),
        ["a", "b", "c"],
        preprocessing=Preprocessing(
            greyscale=Greyscale(),
            steps=[Squash(size=32, interpolation="bicubic")],
            normalise=Normalise(mean=[0.5] * 3, std=[0.25] * 3),
            channels=3,
            height=32,
            width=32,
        ),
        map_facts=MapFacts(grid=[4, 4], kind="similarity", meaning="of a test", tolerance=1e-5),
        relations=("independent",),
        reference=_no_original,
        score_tolerance=1e-4,
        notes=(),
    )
    return dataclasses.replace(
        model, heads=[dataclasses.replace(model.heads[0], reference=sides_reference(model, "classes"))]
    )


def open_clip() -> LoadedModel:
    return family("open_clip").load(open_clip_tiny.FOLDER / open_clip_tiny.WEIGHTS, None, {})


def findings(model: LoadedModel) -> Findings:
    """Every class of every fixed head; the fixture's prompts for a free one."""
    found: dict[str, dict[str, EncodedFinding]] = {}
    for head in model.heads:
        if head.classes is not None:
            found[head.name] = {name: EncodedFinding(class_name=name) for name in head.classes}
        elif model.text is not None:
            encoder = TextEncoder(model.text.rule, model.text.tokenizer)
            prompts = json.loads((carzero_tiny.FOLDER / "prompts.json").read_text(encoding="utf-8"))
            encoded = {key: encoder.encode_finding([text]) for key, text in prompts.items()}
            found[head.name] = {key: each for key, each in encoded.items() if each.prompts[0].wording.words}
    return found


def pictures(count: int, model: LoadedModel, seed: int = 0) -> NDArray[np.uint8]:
    """Blobs of different place, size and brightness on a ramp, uint8 (n, height, width)."""
    rng = np.random.default_rng(seed)
    facts = model.preprocessing
    rows, columns = np.mgrid[: facts.height, : facts.width] / facts.height
    made = []
    for _ in range(count):
        levels = rng.uniform(0, 120) + rng.uniform(-60, 60) * rows
        for _ in range(3):
            y, x, size, light = (
                rng.uniform(0, 1),
                rng.uniform(0, 1),
                rng.uniform(0.05, 0.3),
                rng.uniform(20, 160),
            )
            levels = levels + light * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * size**2))
        made.append(levels)
    return np.clip(np.stack(made), 0, 255).astype(np.uint8)


def images(count: int, model: LoadedModel, **facts: Any) -> DistilImages:
    levels = pictures(count, model)
    hashes = [hashlib.sha256(each.tobytes()).hexdigest() for each in levels]
    digest = hashlib.sha256("".join(hashes).encode()).hexdigest()
    facts.setdefault("patients", np.arange(count) // 2)
    return DistilImages(levels, CalibrationSet(images=count, sha256=digest, source="blobs"), hashes, **facts)


def settings(**changes: Any) -> Distil:
    return read_settings({**SETTINGS, **changes})


def quiet(stage: str, message: str, fraction: float) -> None:
    """Take progress and say nothing."""


def taught(model: LoadedModel, folder: Path, count: int = 24, **changes: Any) -> Any:
    return distil(model, findings(model), settings(**changes), images(count, model), folder, quiet)
