"""An image tower in open_clip's layout with a linear classifier on it: a probe, or fine-tuned end to end.

The file holds ``visual.*`` and ``classifier.{weight,bias}``; tensors of a text tower may be there and are not
read. A logit is the class's row times the projected embedding, which is NOT brought to unit length, plus the
class's bias.

There is no explanation map: the embedding is a class token's, whose last layers mix all patches, so a logit
has no parts that belong to patches, and a likeness of patches to a row would show what was never trained.

Source: the linear probe of Molina-Roman et al., CBMS 2025, arXiv 2506.13964.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from promptray.export.families.base import LoadedModel, Reference, Side, tensor
from promptray.export.families.classifier import class_names, describe_classifier, tolerance_of_logits
from promptray.export.families.open_clip_checkpoint import (
    CURE,
    image_heads,
    image_note,
    image_tower,
    require_size,
)
from promptray.export.families.open_clip_folder import CONFIG, OpenClipConfig, read_config
from promptray.export.families.open_clip_pixels import preprocessing_of
from promptray.export.families.options import invalid_option
from promptray.export.layout import NO_KEY, described, fit_state_dict, sizes_of
from promptray.export.models.dual_encoder import VisualTower
from promptray.export.tunable import Tunable
from promptray.runtime.text import EncodedFinding

#: The tensors by which the layout is known.
WEIGHT, BIAS = "classifier.weight", "classifier.bias"
_TEXT = r"^(?:text\.|logit_scale$|logit_bias$)"
#: What float32 may put an embedding off by (tests/data/biomedclip_tiny: raw features).
_EMBEDDING_ERROR = 2e-5


class Tower(nn.Module):
    """pixels (B, 3, H, W) -> embedding (B, D), not of unit length; its names are the layout's."""

    def __init__(self, visual: VisualTower) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, pixels: Tensor) -> Tensor:
        """Return it."""
        return self.visual.embed(pixels)


class TunedClassifier(Tower):
    """The whole network: pixels -> logits (B, K)."""

    def __init__(self, visual: VisualTower, classifier: nn.Linear) -> None:
        super().__init__(visual)
        self.classifier = classifier

    def forward(self, pixels: Tensor) -> Tensor:
        """Return them."""
        logits: Tensor = self.classifier(self.visual.embed(pixels))
        return logits


class ImageSide(nn.Module):
    """pixels (B, 3, H, W) -> image_vector (B, D)."""

    def __init__(self, visual: VisualTower) -> None:
        super().__init__()
        self.visual = visual

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        """Return it."""
        return (self.visual.embed(pixels),)


def is_tuned(state: Mapping[str, Tensor]) -> bool:
    """Tell whether a classifier, or a part of one, is among the tensors."""
    return WEIGHT in state or BIAS in state


def load_tuned(
    checkpoint: Path,
    content: Mapping[str, Any],
    state: Mapping[str, Tensor],
    text_model: Path | None,
    options: Mapping[str, object],
) -> LoadedModel:
    """Load a classifier (see `Family.load`).

    Parameters
    ----------
    checkpoint : Path
    content, state : mapping
        What the file holds; its tensors, under the layout's names.
    """
    if text_model is not None:
        message = "a classifier reads no text"
        raise invalid_option("text_model", message, "no text_model in the recipe", text_model.name)
    if "context" in options:
        raise invalid_option("context", "a classifier reads no text", "no context", repr(options["context"]))
    config = read_config(checkpoint.with_name(CONFIG))
    visual, note = _visual(config, state, options, checkpoint.name, heads=None)
    width = config.model_cfg.embed_dim
    with described("a classifier of images", checkpoint.name, cure=CURE):
        (count,) = sizes_of(state, WEIGHT, None, width)
    names = class_names(content, options, count, checkpoint.name)
    model = TunedClassifier(visual, nn.Linear(width, count)).eval().requires_grad_(False)
    fit_state_dict(model, state, artefact=checkpoint.name, optional=NO_KEY, ignored=_TEXT)
    rule, rule_note = preprocessing_of(config, options)
    unread = sum(re.search(_TEXT, key) is not None for key in state)
    pixels, vector = tensor("pixels", "batch", 3, *visual.size), tensor("image_vector", "batch", width)
    return describe_classifier(
        "open_clip",
        Side(ImageSide(visual).eval(), [pixels], [vector]),
        model.classifier.weight,
        model.classifier.bias,
        names,
        preprocessing=rule,
        map_facts=None,
        relations=("exclusive", "ordinal", "independent"),
        reference=partial(_reference, model, tuple(names)),
        score_tolerance=tolerance_of_logits(_EMBEDDING_ERROR, model.classifier.weight, model.classifier.bias),
        notes=(
            note,
            rule_note,
            "no explanation map: a logit on a class token has no parts that belong to patches",
            *([f"{unread} tensors of a text side are not read"] if unread else []),
        ),
        sources=(CONFIG,),
    )


def tunable(
    checkpoint: Path, state: Mapping[str, Tensor], options: Mapping[str, object], *, heads: int | None
) -> Tunable:
    """Return the image tower for training, of either layout (see `promptray.export.tunable`).

    Parameters
    ----------
    heads : int or None
        Attention heads, where timm does not know the tower and the recipe does not say; None: it must.
    """
    config = read_config(checkpoint.with_name(CONFIG))
    visual, _ = _visual(config, state, options, checkpoint.name, heads=heads)
    tower = Tower(visual).eval()
    fit_state_dict(tower, state, artefact=checkpoint.name, optional=NO_KEY, ignored=r"^(?!visual\.)")
    kept = {name: value for name, value in options.items() if name in ("preprocessing", "resize")}
    return Tunable(
        family="open_clip",
        tower=tower.requires_grad_(True),
        width=config.model_cfg.embed_dim,
        preprocessing=preprocessing_of(config, options)[0],
        options={**kept, "image_heads": visual.heads},
        prefix="",
        classifier=(WEIGHT, BIAS),
        beside=(checkpoint.with_name(CONFIG),),
    )


def _visual(
    config: OpenClipConfig,
    state: Mapping[str, Tensor],
    options: Mapping[str, object],
    artefact: str,
    *,
    heads: int | None,
) -> tuple[VisualTower, str]:
    """Make the image tower that the configuration and the tensors describe, without the weights."""
    facts = image_tower(config, heads=1)
    if "image_heads" in options or not facts.known_to_timm:
        facts = image_tower(config, image_heads(options, heads))
    with described("the image tower of the configuration", artefact, cure=CURE):
        visual = VisualTower(state, facts, config.model_cfg.embed_dim)
    require_size(visual, state, facts.image_size, artefact)
    return visual, image_note(visual, facts, options)


def _reference(
    model: TunedClassifier,
    names: Sequence[str],
    pixels: Tensor,
    findings: Sequence[EncodedFinding],
    done: Callable[[int], None] = lambda _: None,
) -> Reference:
    """Score by the network's own forward pass, one image at a time."""
    columns = [names.index(str(finding.class_name)) for finding in findings]
    logits = []
    with torch.inference_mode():
        for number, image in enumerate(pixels, start=1):
            logits.append(model(image[None])[:, columns])
            done(number)
    return Reference(logits=torch.cat(logits).numpy(), maps=None)
