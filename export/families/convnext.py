"""ConvNeXt classifiers; where they end in pool, LayerNorm, Linear, logits split exactly over positions.

LayerNorm is linear but for its division by sigma, one scalar an image. So, with f the last feature map, g and
h the norm's weight and bias, W and b the classifier's: the vector of position p is g * (f_p - mean of f_p) /
sigma, the image's vector is their mean + h, a logit is W times that + b, and a class's map is W times each
position's. The sum is exact; it is no causal statement, since sigma and every receptive field see more.
A network of timm that ends in another way (norm before the pool, another norm, a hidden layer) has no map.

Sources: Liu et al., CVPR 2022, arXiv 2201.03545; Woo et al., CVPR 2023 (V2); the density classifiers of
Molina-Roman et al., CBMS 2025, arXiv 2506.13964.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from promptray.export.checkpoint import plain
from promptray.export.families.base import LoadedModel, Reference, Side, tensor
from promptray.export.families.classifier import class_names, describe_classifier, tolerance_of_logits
from promptray.export.families.convnext_checkpoint import read_convnext, splits_over_positions
from promptray.export.families.convnext_pixels import preprocessing_of
from promptray.export.families.options import invalid_option
from promptray.export.torchvision_guard import ensure_torchvision_imports
from promptray.export.tunable import Tunable
from promptray.runtime.bundle.image_rules import Preprocessing
from promptray.runtime.bundle.manifest import MapFacts
from promptray.runtime.text import EncodedFinding

ensure_torchvision_imports()

from timm.models.convnext import ConvNeXt  # noqa: E402 - timm imports torchvision


class ImageSide(nn.Module):
    """pixels (B, 3, H, W) -> image_vector (B, D) and patch_vectors (B, P, D)."""

    def __init__(self, model: ConvNeXt) -> None:
        super().__init__()
        self.model = model
        self.norm: Any = model.head.norm

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return both."""
        return self.finish(*self.encode(pixels))

    def encode(self, pixels: Tensor) -> tuple[Tensor]:
        """Return the last feature map (B, P, D)."""
        return (self.model.forward_features(pixels).flatten(2).transpose(1, 2),)

    def finish(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Return what `forward` does, of the feature map."""
        variance = features.mean(dim=1).var(dim=-1, unbiased=False)
        sigma = (variance + self.norm.eps).sqrt()[:, None, None]
        patches = self.norm.weight * (features - features.mean(dim=-1, keepdim=True)) / sigma
        return patches.mean(dim=1) + self.norm.bias, patches


class Tower(nn.Module):
    """pixels (B, 3, H, W) -> what the classifier takes (B, D)."""

    def __init__(self, model: ConvNeXt) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        """Return it."""
        vectors: Tensor = self.model.forward_head(self.model.forward_features(pixels), pre_logits=True)
        return vectors


class PlainImageSide(Tower):
    """pixels (B, 3, H, W) -> image_vector (B, D), of a network whose logits do not split."""

    def forward(self, pixels: Tensor) -> tuple[Tensor]:  # type: ignore[override]
        """Return it."""
        return (super().forward(pixels),)


class ConvNeXtFamily:
    """Reads torchvision's and timm's layouts."""

    def load(self, checkpoint: Path, text_model: Path | None, options: Mapping[str, object]) -> LoadedModel:
        """Load a classifier (see `Family.load`). A text model is refused: there is no text."""
        _refuse_text(text_model)
        found = read_convnext(checkpoint, options)
        names = class_names(
            found.content,
            options,
            found.model.head.fc.out_features,
            checkpoint.name,
            default=_own_descriptions(found.content),
        )
        rule, said = preprocessing_of(found, options)
        how = ", ".join(f"{name} {value}" for name, value in said.items())
        return _describe(found.model, names, rule, [found.note, how])

    def tunable(self, checkpoint: Path, text_model: Path | None, options: Mapping[str, object]) -> Tunable:
        """Load all below the classifier for training (see `promptray.export.tunable`)."""
        _refuse_text(text_model)
        found = read_convnext(checkpoint, options)
        rule, said = preprocessing_of(found, options)
        model = found.model
        model.reset_classifier(0)  # all below it stays
        return Tunable(
            family="convnext",
            tower=Tower(model.requires_grad_(True)).eval(),
            width=model.head_hidden_size,
            preprocessing=rule,
            options={**said, **found.settings},
            prefix="model.",
            classifier=("head.fc.weight", "head.fc.bias"),
        )


FAMILY = ConvNeXtFamily()


def _refuse_text(text_model: Path | None) -> None:
    if text_model is not None:
        raise invalid_option("text_model", "this family reads no text", "no text_model", text_model.name)


def _own_descriptions(content: Mapping[str, Any]) -> object:
    """Return the classes as the study's own training code stored them, or None."""
    stated = plain(content.get("hyper_parameters"))
    return stated.get("class_descriptions") if isinstance(stated, Mapping) else None


def _describe(
    model: ConvNeXt, names: Sequence[str], rule: Preprocessing, notes: Sequence[str]
) -> LoadedModel:
    side, weight, bias = rule.height, model.head.fc.weight, model.head.fc.bias
    splits = splits_over_positions(model)
    outputs, map_facts = [tensor("image_vector", "batch", weight.shape[1])], None
    if splits:
        with torch.inference_mode():
            _, width, rows, columns = model.forward_features(torch.zeros(1, 3, side, side)).shape
        outputs.append(tensor("patch_vectors", "batch", rows * columns, width))
        map_facts = MapFacts(
            grid=[rows, columns],
            kind="class-activation",
            meaning="what each position of the last feature map adds to the class's logit: their mean "
            "and a constant are the logit, exactly; no causal statement, since each position sees more",
            tolerance=tolerance_of_logits(5e-5, weight, bias),
        )
    else:
        notes = [*notes, "no explanation map: this network's head does not let a logit split over positions"]
    module = ImageSide(model) if splits else PlainImageSide(model)
    return describe_classifier(
        "convnext",
        Side(module.eval(), [tensor("pixels", "batch", 3, side, side)], outputs),
        weight,
        bias,
        names,
        preprocessing=rule,
        map_facts=map_facts,
        relations=("exclusive", "ordinal", "independent"),
        reference=partial(_reference, model, tuple(names)),
        score_tolerance=tolerance_of_logits(1e-5, weight, bias),
        notes=notes,
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
    splits = splits_over_positions(model)
    logits, maps = [], []
    with torch.inference_mode():
        for number, image in enumerate(pixels, start=1):
            logits.append(model(image[None])[:, columns])
            if splits:
                maps.append(_maps(model, columns, image[None]))
            done(number)
    return Reference(logits=torch.cat(logits).numpy(), maps=torch.cat(maps).numpy() if splits else None)


def _maps(model: ConvNeXt, columns: Sequence[int], pixels: Tensor) -> Tensor:
    """Return what each position adds to the logits of these rows (B, K, rows, columns)."""
    norm: Any = model.head.norm
    features = model.forward_features(pixels)
    sigma = (features.mean(dim=(2, 3)).var(dim=1, unbiased=False) + norm.eps).sqrt()
    centred = features - features.mean(dim=1, keepdim=True)
    weights = model.head.fc.weight[columns] * norm.weight
    return torch.einsum("kc,bcyx->bkyx", weights, centred) / sigma[:, None, None, None]
