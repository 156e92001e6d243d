"""What dual encoders have in common: a tower for images, one for texts, and the cosine between them.

All that scoring needs of a prompt is one vector, so the bank is a matrix and the head one product:

* image side: one unit vector of the image, and one of each patch, which goes the same way, for the map;
* text side: one unit vector of each wording; a finding's is their mean, at unit length;
* head: the cosine, perhaps times a scale; of a pair it is the difference of two.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from promptray.export.families.base import (
    INPUT_IDS,
    LoadedHead,
    LoadedModel,
    LoadedText,
    Reference,
    Side,
    answers,
    entry_of,
    tensor,
    weights_sha256,
)
from promptray.export.models.class_matrix import ClassMatrix
from promptray.export.models.clip import Clip
from promptray.export.models.dual_encoder import DualEncoder
from promptray.runtime.bundle.image_rules import Preprocessing
from promptray.runtime.bundle.manifest import MapFacts, Relation, TextRule
from promptray.runtime.text import EncodedFinding, EncodedPrompt

HEAD = "findings"


class ImageSide(nn.Module):
    """pixels (B, 3, H, W) -> image_vector (B, D), patch_vectors (B, P, D), all of unit length."""

    def __init__(self, model: Clip | DualEncoder) -> None:
        super().__init__()
        self.visual = model.visual

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return both."""
        image, patches = self.visual(pixels)
        return image, patches

    encode = forward

    def finish(self, image: Tensor, patches: Tensor) -> tuple[Tensor, Tensor]:
        """Bring vectors to unit length; those of `encode` have it."""
        return nn.functional.normalize(image, dim=-1), nn.functional.normalize(patches, dim=-1)


class TextSide(nn.Module):
    """input_ids (1, T) -> finding_vector (D,), the unit vector of one wording."""

    def __init__(self, model: Clip | DualEncoder) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> tuple[Tensor]:
        """Return it."""
        return (self.model.encode_text(input_ids)[0],)


@dataclass(frozen=True)
class Cosine:
    """The original's own arithmetic: texts padded to the context, one image at a time.

    Attributes
    ----------
    model : Clip or DualEncoder
    context, pad_id : int
        Tokens of a padded text, and what fills it up.
    scale, bias : Tensor or None
        What the cosine is multiplied with, and what is added.
    """

    model: Clip | DualEncoder
    context: int
    pad_id: int = 0
    scale: Tensor | None = None
    bias: Tensor | None = None

    def __call__(
        self,
        pixels: Tensor,
        findings: Sequence[EncodedFinding],
        done: Callable[[int], None] = lambda _: None,
    ) -> Reference:
        """Score (see `promptray.export.families.base.Scoring`)."""
        logits, maps = [], []
        with torch.inference_mode():
            own = torch.stack([self._vector(finding.prompts) for finding in findings])
            asked = [finding.negative_prompts for finding in findings if finding.negative_prompts]
            negatives = torch.stack([self._vector(each) for each in asked]) if asked else None
            vectors = own if negatives is None else own - negatives
            for number, one in enumerate(pixels, start=1):
                image, patches = self.model.visual(one[None])
                logit = self._logit(image, own)
                logits.append(logit if negatives is None else logit - self._logit(image, negatives))
                maps.append((patches @ vectors.T).transpose(1, 2).unflatten(-1, self.model.visual.grid))
                done(number)
        return Reference(logits=torch.cat(logits).numpy(), maps=torch.cat(maps).numpy())

    def _logit(self, image: Tensor, vectors: Tensor) -> Tensor:
        cosine = image @ vectors.T
        scaled = cosine if self.scale is None else self.scale * cosine
        return scaled if self.bias is None else scaled + self.bias

    def _vector(self, prompts: Sequence[EncodedPrompt]) -> Tensor:
        """Return the mean of the unit vectors, at unit length: the published classifier of one finding."""
        ids = torch.full((len(prompts), self.context), self.pad_id)
        for row, prompt in zip(ids, prompts, strict=True):
            tokens = torch.from_numpy(prompt.arrays["input_ids"][0])
            row[: len(tokens)] = tokens
        return nn.functional.normalize(self.model.encode_text(ids).mean(dim=0), dim=-1)


def describe_dual_encoder(
    family: str,
    cosine: Cosine,
    rule: TextRule,
    tokenizer: bytes,
    *,
    text_weights: Mapping[str, Tensor],
    relations: Sequence[Relation],
    preprocessing: Preprocessing,
    score_tolerance: float,
    notes: Sequence[str],
) -> LoadedModel:
    """Describe a dual encoder by its arithmetic and its texts.

    Parameters
    ----------
    rule : TextRule
        Of the head :data:`HEAD`.
    tokenizer : bytes
        ``tokenizer.json``.
    text_weights : mapping of str to Tensor
        What a wording's vector depends on.
    """
    model = cosine.model
    grid, width = model.visual.grid, model.width
    pixels = tensor("pixels", "batch", 3, preprocessing.height, preprocessing.width)
    image = [
        tensor("image_vector", "batch", width),
        tensor("patch_vectors", "batch", grid[0] * grid[1], width),
    ]
    bank = [tensor("finding_vector", "prompts", width)]
    matrix = ClassMatrix(grid, cosine.scale, cosine.bias).eval()
    head = LoadedHead(
        name=HEAD,
        set="free",
        side=Side(matrix, [*image, *bank], answers(grid)),
        bank=bank,
        relations=relations,
        activation="none",
        map=MapFacts(
            grid=list(grid),
            kind="similarity",
            meaning="cosine of each patch, through the final norm and the projection, with the finding's "
            "vector; patches were not trained to it, so it shows likeness and proves nothing",
            tolerance=1e-5,
        ),
        ensemble="mean-unit",
        identity={"text_weights": weights_sha256(text_weights), "layout": "unit-vector-1"},
        reference=cosine,
        score_tolerance=score_tolerance,
    )
    text = LoadedText(rule, tokenizer, Side(TextSide(model).eval(), [INPUT_IDS], entry_of(bank)))
    return LoadedModel(
        family=family,
        preprocessing=preprocessing,
        image=Side(ImageSide(model).eval(), [pixels], image),
        text=text,
        heads=[head],
        notes=notes,
    )
