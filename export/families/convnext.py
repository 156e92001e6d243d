"""ConvNeXt classifiers: pool, LayerNorm, Linear, whose logits split exactly over the last map's positions.

LayerNorm is linear but for its division by sigma, one scalar an image. So, with f the last feature map, g and
h the norm's weight and bias, W and b the classifier's: the vector of position p is g * (f_p - mean of f_p) /
sigma, the image's vector is their mean + h, a logit is W times that + b, and a class's map is W times each
position's. The sum is exact; it is no causal statement, since sigma and every receptive field see more.

Sources: Liu et al., CVPR 2022, arXiv 2201.03545; Woo et al., CVPR 2023 (V2); the density classifiers of
Molina-Roman et al., CBMS 2025, arXiv 2506.13964.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from promptray.export.checkpoint import load_checkpoint, plain, tensors
from promptray.export.families.base import LoadedModel, Reference, Side, tensor
from promptray.export.families.classifier import class_names, describe_classifier, tolerance_of_logits
from promptray.export.families.density_study import study_preprocessing
from promptray.export.families.options import invalid_option
from promptray.export.layout import fit_state_dict
from promptray.export.torchvision_guard import ensure_torchvision_imports
from promptray.export.tunable import Tunable
from promptray.runtime.bundle.manifest import (
    CentreCrop,
    Greyscale,
    MapFacts,
    Normalise,
    Preprocessing,
    ResizeShorterSide,
)
from promptray.runtime.errors import BuildError
from promptray.runtime.text import EncodedFinding

ensure_torchvision_imports()

from timm.models.convnext import ConvNeXt  # noqa: E402 - timm imports torchvision

_NOTHING = r"(?!)"
#: torchvision's names, in timm's words. Of `features`, odd places are stages and even ones downsamplings.
_STAGE_PARTS = {"block.0": "conv_dw", "block.2": "norm", "block.3": "mlp.fc1", "block.5": "mlp.fc2"}
_HEAD_PARTS = {"classifier.0": "head.norm", "classifier.2": "head.fc"}
_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])


class ImageSide(nn.Module):
    """pixels (B, 3, H, W) -> image_vector (B, D) and patch_vectors (B, P, D)."""

    def __init__(self, model: ConvNeXt) -> None:
        super().__init__()
        self.model = model
        self.norm: Any = model.head.norm

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return both."""
        features = self.model.forward_features(pixels).flatten(2).transpose(1, 2)
        variance = features.mean(dim=1).var(dim=-1, unbiased=False)
        sigma = (variance + self.norm.eps).sqrt()[:, None, None]
        patches = self.norm.weight * (features - features.mean(dim=-1, keepdim=True)) / sigma
        return patches.mean(dim=1) + self.norm.bias, patches


class Tower(nn.Module):
    """pixels (B, 3, H, W) -> what the classifier takes (B, D), of a network without one."""

    def __init__(self, model: ConvNeXt) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """Return it."""
        vectors: Tensor = self.model(pixels)
        return vectors


class ConvNeXtFamily:
    """Reads torchvision's and timm's layouts."""

    def load(self, checkpoint: Path, text_model: Path | None, options: Mapping[str, object]) -> LoadedModel:
        """Load a classifier (see `Family.load`). A text model is refused: there is no text."""
        _refuse_text(text_model)
        content, model = _read(checkpoint)
        names = class_names(
            content,
            options,
            model.head.fc.out_features,
            checkpoint.name,
            default=_own_descriptions(content),
        )
        return _describe(model, names, _preprocessing(options))

    def tunable(self, checkpoint: Path, text_model: Path | None, options: Mapping[str, object]) -> Tunable:
        """Load all below the classifier for training (see `promptray.export.tunable`)."""
        _refuse_text(text_model)
        _, model = _read(checkpoint)
        rule = _preprocessing(options)
        model.reset_classifier(0)  # the pooling and the norm stay
        return Tunable(
            family="convnext",
            tower=Tower(model.requires_grad_(True)).eval(),
            width=model.num_features,
            preprocessing=rule,
            options={"preprocessing": options["preprocessing"], "image_size": rule.height},
            prefix="model.",
            classifier=("head.fc.weight", "head.fc.bias"),
        )


FAMILY = ConvNeXtFamily()


def _refuse_text(text_model: Path | None) -> None:
    if text_model is not None:
        raise invalid_option("text_model", "this family reads no text", "no text_model", text_model.name)


def _read(checkpoint: Path) -> tuple[dict[str, Any], ConvNeXt]:
    """Return what the checkpoint holds, and the network with its weights, in evaluation mode."""
    content = load_checkpoint(checkpoint)
    state = _timm_state(content, checkpoint.name)
    model = _model(state, checkpoint.name)
    fit_state_dict(model, state, artefact=checkpoint.name, optional=_NOTHING, ignored=_NOTHING)
    return content, model.eval().requires_grad_(False)


def _timm_state(content: Mapping[str, Any], artefact: str) -> dict[str, Tensor]:
    """Return the tensors, float32, under timm's names."""
    nested = next(
        (content[key] for key in ("state_dict", "model") if isinstance(content.get(key), Mapping)), content
    )
    found = {key.removeprefix("model."): value for key, value in tensors(nested)}
    if "features.0.0.weight" in found:
        found = {_timm_name(key): value for key, value in found.items()}
        found = {key: v.flatten() if key.endswith("gamma") else v for key, v in found.items()}
    if "stem.0.weight" not in found:
        raise BuildError(
            "checkpoint.layout",
            "no tensor of this checkpoint belongs to a ConvNeXt in torchvision's or timm's layout",
            artefact=artefact,
            expected="keys 'features.0.0.weight' or 'stem.0.weight', perhaps after 'model.'",
            found=", ".join(list(found or content)[:5]),
            cure="check that the recipe names the right family and file",
        )
    return {key: value.float() for key, value in found.items()}


def _timm_name(key: str) -> str:
    """Rename one of torchvision's keys; an unknown one stays, and is then refused as unexpected."""
    for theirs, ours in _HEAD_PARTS.items():
        if key.startswith(f"{theirs}."):
            return ours + key.removeprefix(theirs)
    place = re.fullmatch(r"features\.(\d+)\.(\d+)\.(.+)", key)
    if place is None:
        return key
    level, number, rest = int(place[1]), place[2], place[3]
    if level == 0:
        return f"stem.{number}.{rest}"
    if level % 2 == 0:
        return f"stages.{level // 2}.downsample.{number}.{rest}"
    block = f"stages.{level // 2}.blocks.{number}."
    if rest == "layer_scale":
        return f"{block}gamma"
    part = ".".join(rest.split(".")[:2])
    return block + _STAGE_PARTS.get(part, part) + rest.removeprefix(part)


def _model(state: Mapping[str, Tensor], artefact: str) -> ConvNeXt:
    """Make the ConvNeXt whose sizes the tensors tell."""
    try:
        stages = [key for key in state if re.match(r"stages\.\d+\.blocks\.\d+\.norm\.weight", key)]
        places = [tuple(map(int, re.findall(r"\d+", key)[:2])) for key in stages]
        count = 1 + max(stage for stage, _ in places)
        first = "stages.0.blocks.0."
        return ConvNeXt(
            num_classes=state["head.fc.weight"].shape[0],
            depths=tuple(1 + max(block for stage, block in places if stage == n) for n in range(count)),
            dims=tuple(state[f"stages.{n}.blocks.0.norm.weight"].shape[0] for n in range(count)),
            kernel_sizes=state[f"{first}conv_dw.weight"].shape[-1],
            patch_size=state["stem.0.weight"].shape[-1],
            conv_mlp=state[f"{first}mlp.fc1.weight"].ndim == 4,
            use_grn=f"{first}mlp.grn.weight" in state,
            ls_init_value=1e-6 if f"{first}gamma" in state else None,
        )
    except (KeyError, ValueError, IndexError, RuntimeError) as error:
        raise BuildError(
            "checkpoint.layout",
            f"the tensors do not describe a ConvNeXt with pool, norm and linear head ({str(error)[:120]})",
            artefact=artefact,
            cure="check that the recipe names the right family and file",
        ) from error


def _own_descriptions(content: Mapping[str, Any]) -> object:
    """Return the classes as the study's own training code stored them, or None."""
    stated = plain(content.get("hyper_parameters"))
    return stated.get("class_descriptions") if isinstance(stated, Mapping) else None


def _image_size(options: Mapping[str, object]) -> int:
    side = options.get("image_size", 224)
    if type(side) is not int or side < 32 or side % 32:
        raise invalid_option(
            "image_size", "the network halves its input five times", "a multiple of 32", repr(side)
        )
    return side


def _preprocessing(options: Mapping[str, object]) -> Preprocessing:
    side = _image_size(options)
    kind = options.get("preprocessing")
    if kind == "squash":
        return study_preprocessing(side)
    if kind == "imagenet":
        shorter = round(side * 232 / 224)
        return Preprocessing(
            greyscale=Greyscale(),
            steps=[ResizeShorterSide(size=shorter, interpolation="bilinear"), CentreCrop(size=side)],
            normalise=Normalise(mean=_IMAGENET[0], std=_IMAGENET[1]),
            channels=3,
            height=side,
            width=side,
            colour="rgb",
        )
    raise invalid_option(
        "preprocessing",
        "how the model's images were prepared is not in its weights, so it must be said",
        "squash or imagenet",
        "none" if kind is None else repr(kind)[:40],
    )


def _describe(model: ConvNeXt, names: Sequence[str], rule: Preprocessing) -> LoadedModel:
    side = rule.height
    with torch.inference_mode():
        _, width, rows, columns = model.forward_features(torch.zeros(1, 3, side, side)).shape
    return describe_classifier(
        "convnext",
        Side(
            ImageSide(model).eval(),
            [tensor("pixels", "batch", 3, side, side)],
            [tensor("image_vector", "batch", width), tensor("patch_vectors", "batch", rows * columns, width)],
        ),
        model.head.fc.weight,
        model.head.fc.bias,
        names,
        preprocessing=rule,
        map_facts=MapFacts(
            grid=[rows, columns],
            kind="class-activation",
            meaning="what each position of the last feature map adds to the class's logit: their mean "
            "and a constant are the logit, exactly; no causal statement, since each position sees more",
            tolerance=tolerance_of_logits(5e-5, model.head.fc.weight),
        ),
        relations=("exclusive", "ordinal", "independent"),
        reference=partial(_reference, model, tuple(names)),
        score_tolerance=tolerance_of_logits(1e-5, model.head.fc.weight),
        notes=(),
    )


def _reference(
    model: ConvNeXt,
    names: Sequence[str],
    pixels: Tensor,
    findings: Sequence[EncodedFinding],
    done: Callable[[int], None] = lambda _: None,
) -> Reference:
    """Score by the network's own forward pass; maps by the decomposition of each logit."""
    columns = [names.index(str(finding.class_name)) for finding in findings]
    norm: Any = model.head.norm
    classifier: Any = model.head.fc
    logits, maps = [], []
    with torch.inference_mode():
        for number, image in enumerate(pixels, start=1):
            logits.append(model(image[None])[:, columns])
            features = model.forward_features(image[None])
            sigma = (features.mean(dim=(2, 3)).var(dim=1, unbiased=False) + norm.eps).sqrt()
            centred = features - features.mean(dim=1, keepdim=True)
            weights = classifier.weight[columns] * norm.weight
            maps.append(torch.einsum("kc,bcyx->bkyx", weights, centred) / sigma[:, None, None, None])
            done(number)
    return Reference(logits=torch.cat(logits).numpy(), maps=torch.cat(maps).numpy())
