"""SqueezeNet classifiers in torchvision's layout; a logit is the mean of its class's map, exactly.

The network ends in a convolution to one channel for each class, ReLU, and the mean over positions. So the
map of a class is its channel after the ReLU, and the mean of the map is the logit: nothing is left over, and
no cell is negative. It is no causal statement, since each position sees more than itself. The ReLU stands
between the classifier's weights and the mean: no vector of the image times a row of weights gives the logit.
So the classifier belongs to the image side, and a class's entry of the bank picks its channel.

A logit is 0 at least, and one on its own would never say "absent": classes are alternatives, with a softmax.

Sources: Iandola et al., 2016, arXiv 1602.07360; torchvision's `SqueezeNet`, 1.0 and 1.1: it is that module.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from promptray.export.checkpoint import load_checkpoint, tensors
from promptray.export.families.base import LoadedModel, Reference, Side, tensor
from promptray.export.families.classifier import (
    CLASSES,
    class_names,
    describe_classifier,
    tolerance_of_logits,
)
from promptray.export.families.options import invalid_option
from promptray.export.layout import NO_KEY, described, fit_state_dict, sizes_of
from promptray.export.safetensors_checkpoint import METADATA
from promptray.export.torchvision_guard import ensure_torchvision_imports
from promptray.runtime.bundle.image_rules import (
    CentreCrop,
    Greyscale,
    Normalise,
    Preprocessing,
    ResizeShorterSide,
    Squash,
    Step,
)
from promptray.runtime.bundle.manifest import MapFacts
from promptray.runtime.text import EncodedFinding

ensure_torchvision_imports()

from torchvision.models.squeezenet import SqueezeNet  # noqa: E402 - needs the guard

#: Channels of the first convolution -> torchvision's version.
_VERSIONS = {96: "1_0", 64: "1_1"}
_WIDTH = 512  # of the last feature map
_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
_SIDE, _SHORTER, _LEAST_SIDE = 224, 256, 32
_KINDS = ("square", "imagenet")


class ImageSide(nn.Module):
    """pixels (B, 3, H, W) -> image_vector (B, K), the logits, and patch_vectors (B, P, K), their maps."""

    def __init__(self, model: SqueezeNet) -> None:
        super().__init__()
        self.features = model.features
        self.classifier = model.classifier[1]

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return both."""
        activations = self.classifier(self.features(pixels)).relu()
        return activations.mean(dim=(2, 3)), activations.flatten(2).transpose(1, 2)


class SqueezeNetFamily:
    """Reads torchvision's layout."""

    def load(self, checkpoint: Path, text_model: Path | None, options: Mapping[str, object]) -> LoadedModel:
        """Load a classifier (see `Family.load`). A text model is refused: there is no text."""
        if text_model is not None:
            raise invalid_option("text_model", "this family reads no text", "no text_model", text_model.name)
        rule = preprocessing_of(options)
        content = load_checkpoint(checkpoint)
        model = _model(content, checkpoint.name)
        names = class_names(_listed(content), options, model.num_classes, checkpoint.name)
        return _describe(model, names, rule, str(options["preprocessing"]))


FAMILY = SqueezeNetFamily()


def preprocessing_of(options: Mapping[str, object]) -> Preprocessing:
    """Return how images are prepared, which no tensor tells.

    Raises
    ------
    BuildError
        ``recipe.invalid`` for what is left out or cannot be used.
    """
    kind, side = options.get("preprocessing"), options.get("image_size", _SIDE)
    if kind not in _KINDS:
        raise invalid_option(
            "preprocessing",
            "how the model's images were prepared is not in its weights, so it must be said",
            ", ".join(_KINDS),
            "none" if kind is None else repr(kind),
        )
    if type(side) is not int or side < _LEAST_SIDE:
        expected = f"pixels, at least {_LEAST_SIDE}"
        raise invalid_option("image_size", "this value cannot be used", expected, repr(side))
    shorter = options.get("resize", _SHORTER if side == _SIDE else None)
    if kind == "square" and "resize" in options:
        raise invalid_option("resize", "preprocessing: square says it", "no resize", repr(shorter))
    steps: list[Step] = [Squash(size=side, interpolation="bilinear")]
    if kind == "imagenet":
        if type(shorter) is not int or not side <= shorter <= 4 * side:
            message = "the shorter side before the cut is known at 224 only"
            raise invalid_option("resize", message, f"pixels, at least {side}", repr(shorter))
        steps = [ResizeShorterSide(size=shorter, interpolation="bilinear"), CentreCrop(size=side)]
    return Preprocessing(
        greyscale=Greyscale(),
        steps=steps,
        normalise=Normalise(mean=_MEAN, std=_STD),
        channels=3,
        height=side,
        width=side,
        colour="rgb",
    )


def _model(content: Mapping[str, Any], artefact: str) -> SqueezeNet:
    nested = next(
        (content[key] for key in ("state_dict", "model") if isinstance(content.get(key), Mapping)), content
    )
    state = {key.removeprefix("model."): value for key, value in tensors(nested)}
    with described("a SqueezeNet in torchvision's layout", artefact):
        (channels,) = sizes_of(state, "features.0.bias", None)
        if channels not in _VERSIONS:
            raise ValueError(f"features.0.bias: expected 96 numbers (1.0) or 64 (1.1), found {channels}")
        (classes,) = sizes_of(state, "classifier.1.bias", None)
        sizes_of(state, "classifier.1.weight", classes, _WIDTH, 1, 1)
    model = SqueezeNet(_VERSIONS[channels], num_classes=classes)
    fit_state_dict(model, state, artefact=artefact, optional=NO_KEY, ignored=NO_KEY)
    return model.eval().requires_grad_(False)


def _listed(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the content with its classes as a JSON list, where the file has them with commas between."""
    texts = content.get(METADATA)
    text = texts.get(CLASSES) if isinstance(texts, Mapping) else None
    if not isinstance(text, str) or text.lstrip().startswith(("[", "{")) or "," not in text:
        return content
    listed = json.dumps([name.strip() for name in text.split(",")])
    return {**content, METADATA: {**content[METADATA], CLASSES: listed}}


def _describe(model: SqueezeNet, names: Sequence[str], rule: Preprocessing, kind: str) -> LoadedModel:
    module, side, count = ImageSide(model).eval(), rule.height, len(names)
    with torch.inference_mode():
        rows, columns = model.features(torch.zeros(1, 3, side, side)).shape[2:]
    classifier: Any = module.classifier
    weight, bias = classifier.weight.flatten(1), classifier.bias
    tolerance = tolerance_of_logits(2e-5, weight, bias)
    return describe_classifier(
        "squeezenet",
        Side(
            module,
            [tensor("pixels", "batch", 3, side, side)],
            [tensor("image_vector", "batch", count), tensor("patch_vectors", "batch", rows * columns, count)],
        ),
        torch.eye(count),
        torch.zeros(count),
        names,
        preprocessing=rule,
        map_facts=MapFacts(
            grid=[rows, columns],
            kind="class-activation",
            meaning="what each position of the last feature map adds to the class's logit: their mean is "
            "the logit, exactly; no causal statement, since each position sees more",
            tolerance=tolerance_of_logits(2e-4, weight, bias),
        ),
        relations=("exclusive", "ordinal"),
        reference=partial(_reference, model, tuple(names)),
        score_tolerance=tolerance,
        notes=[f"SqueezeNet, preprocessing {kind}, image_size {side}"],
        head_weights={"weight": weight, "bias": bias},
    )


def _reference(
    model: SqueezeNet,
    names: Sequence[str],
    pixels: Tensor,
    findings: Sequence[EncodedFinding],
    done: Callable[[int], None] = lambda _: None,
) -> Reference:
    """Score by the network's own forward pass, one image at a time; maps are what it takes the mean of."""
    columns = [names.index(str(finding.class_name)) for finding in findings]
    logits, maps = [], []
    with torch.inference_mode():
        for number, image in enumerate(pixels, start=1):
            logits.append(model(image[None])[:, columns])
            maps.append(model.classifier[:3](model.features(image[None]))[:, columns])
            done(number)
    return Reference(logits=torch.cat(logits).numpy(), maps=torch.cat(maps).numpy())
