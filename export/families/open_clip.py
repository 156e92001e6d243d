"""Dual encoders in open_clip's layout: a ViT of timm, a BERT, and the scaled cosine between them.

All that scoring needs of a prompt is one vector, so the bank is a matrix and the head one product:

* image side: ViT, projection, unit length; the patches go the same way, for the map;
* text side: BERT, pooling, projection, unit length: one vector for each wording, averaged to the finding's;
* head: exp(logit_scale) times the cosine; the map is the cosine of each patch with the finding's vector.

A file with ``classifier.weight`` is an image tower with a classifier instead: see `open_clip_tuned`.

Source: open_clip 3.3.0 (MIT); BiomedCLIP: Zhang et al., NEJM AI 2025, arXiv 2303.00915.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from promptray.export.checkpoint import load_checkpoint
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
from promptray.export.families.open_clip_checkpoint import (
    described,
    image_heads,
    image_note,
    image_tower,
    published_state,
    require_size,
)
from promptray.export.families.open_clip_folder import CONFIG, OpenClipFolder, read_open_clip_folder
from promptray.export.families.open_clip_pixels import preprocessing_of
from promptray.export.families.open_clip_tuned import WEIGHT, load_tuned, tunable
from promptray.export.families.options import invalid_option
from promptray.export.layout import NO_KEY, fit_state_dict
from promptray.export.models.class_matrix import ClassMatrix
from promptray.export.models.dual_encoder import DualEncoder, TextTower
from promptray.export.tunable import Tunable
from promptray.runtime.bundle.manifest import MapFacts, Preprocessing, TextRule
from promptray.runtime.errors import BuildError
from promptray.runtime.text import EncodedFinding, EncodedPrompt

HEAD = "findings"
# Buffers that older transformers stored; they count up from 0.
_IGNORED = r"embeddings\.position_ids$|embeddings\.token_type_ids$"


class ImageSide(nn.Module):
    """pixels (B, 3, H, W) -> image_vector (B, D), patch_vectors (B, P, D), all of unit length."""

    def __init__(self, model: DualEncoder) -> None:
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

    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.text = model.text

    def forward(self, input_ids: Tensor) -> tuple[Tensor]:
        """Return it."""
        return (self.text(input_ids)[0],)


class OpenClipFamily:
    """Reads weights with ``open_clip_config.json`` beside them: both towers, or one with a classifier."""

    def load(self, checkpoint: Path, text_model: Path | None, options: Mapping[str, object]) -> LoadedModel:
        """Load the weights and the configuration beside them (see `Family.load`)."""
        content = load_checkpoint(checkpoint)
        state = published_state(content, checkpoint.name)
        if WEIGHT in state:
            return load_tuned(checkpoint, content, state, text_model, options)
        if "classes" in options:
            what, found = "this checkpoint has no classifier; it scores wordings", repr(options["classes"])
            raise invalid_option("classes", what, "findings with prompts", found)
        folder = read_open_clip_folder(checkpoint, text_model)
        model, note = _model(folder, state, options, checkpoint.name)
        text = model.text.transformer.config
        folder.text.require_fit(
            width=text.hidden_size, vocabulary=text.vocab_size, layers=text.num_hidden_layers
        )
        context = _context(folder, options, text.max_position_embeddings)
        rule, rule_note = preprocessing_of(folder.config, options)
        return _describe(model, folder, rule, context, (note, rule_note))

    def tunable(self, checkpoint: Path, text_model: Path | None, options: Mapping[str, object]) -> Tunable:
        """Load the image tower for training (see `promptray.export.tunable`)."""
        state = published_state(load_checkpoint(checkpoint), checkpoint.name)
        heads = None if WEIGHT in state else read_open_clip_folder(checkpoint, text_model).text.heads
        return tunable(checkpoint, state, options, heads=heads)


FAMILY = OpenClipFamily()


def _model(
    folder: OpenClipFolder, state: Mapping[str, Tensor], options: Mapping[str, object], artefact: str
) -> tuple[DualEncoder, str]:
    """Make the module that the configuration and the tensors describe, with the weights in it."""
    text = folder.config.model_cfg.text_cfg
    tower = image_tower(folder.config, image_heads(options, folder.text.heads))
    text_tower = TextTower(
        heads=folder.text.heads,
        pooler=text.hf_pooler_type,
        projection=text.hf_proj_type,
        pad_id=folder.text.vocabulary.index("[PAD]"),
    )
    with described(artefact):
        model = DualEncoder(state, tower, text_tower, folder.config.model_cfg.embed_dim)
    model.eval().requires_grad_(False)
    require_size(model.visual, state, tower.image_size, artefact)
    fit_state_dict(model, state, artefact=artefact, optional=NO_KEY, ignored=_IGNORED)
    return model, image_note(model.visual, tower, options)


def _context(folder: OpenClipFolder, options: Mapping[str, object], positions: int) -> int:
    """Return how many tokens of a text are read: as configured, or as the recipe says."""
    context = folder.config.model_cfg.text_cfg.context_length
    if context > positions:
        raise BuildError(
            "checkpoint.config",
            "context_length exceeds the positions of the text tower",
            artefact=CONFIG,
            expected=f"at most {positions}",
            found=str(context),
            cure="put the configuration published with the checkpoint beside it",
        )
    asked = options.get("context", context)
    if not (type(asked) is int and 3 <= asked <= positions):
        expected = f"3 to {positions} tokens, the two special ones included"
        raise invalid_option("context", "this value cannot be used", expected, repr(asked))
    return asked


def _describe(
    model: DualEncoder,
    folder: OpenClipFolder,
    preprocessing: Preprocessing,
    context: int,
    notes: Sequence[str],
) -> LoadedModel:
    grid = model.visual.grid
    width = folder.config.model_cfg.embed_dim
    image = [
        tensor("image_vector", "batch", width),
        tensor("patch_vectors", "batch", grid[0] * grid[1], width),
    ]
    bank = [tensor("finding_vector", "prompts", width)]
    matrix = ClassMatrix(grid=grid, scale=model.logit_scale.exp(), bias=model.bias)
    state = model.state_dict()
    head = LoadedHead(
        name=HEAD,
        set="free",
        side=Side(matrix, [*image, *bank], answers(grid)),
        bank=bank,
        # A pair's logit is a difference, in which a learned bias would cancel: it was trained for one.
        relations=("independent", "exclusive", "ordinal", *(() if model.bias is not None else ("pair",))),
        activation="none",
        map=MapFacts(
            grid=list(grid),
            kind="similarity",
            meaning="cosine of each patch, through the final norm and the projection, with the finding's "
            "vector; patches were not trained to it, so it shows likeness and proves nothing",
            tolerance=1e-5,
        ),
        ensemble="mean-unit",
        identity={
            "text_weights": weights_sha256({k: v for k, v in state.items() if k.startswith("text.")}),
            "layout": "unit-vector-1",
        },
        reference=partial(_reference, model, context),
        # The cosine is multiplied by about 85: the original itself is 3.5e-5 off double precision.
        score_tolerance=2e-4,
    )
    rule = TextRule(
        head=HEAD,
        cleaning="open-clip",
        tokenizer="tokenizer.json",
        context=context,
        templates=["this is a photo of {}"],
    )
    text_side = Side(TextSide(model).eval(), [INPUT_IDS], entry_of(bank))
    return LoadedModel(
        family="open_clip",
        preprocessing=preprocessing,
        image=Side(ImageSide(model).eval(), [tensor("pixels", "batch", 3, *model.visual.size)], image),
        text=LoadedText(rule, folder.text.tokenizer_json(context=context), text_side),
        heads=[head],
        notes=notes,
    )


def _reference(
    model: DualEncoder,
    context: int,
    pixels: Tensor,
    findings: Sequence[EncodedFinding],
    done: Callable[[int], None] = lambda _: None,
) -> Reference:
    """Score as open_clip does: texts padded to the context, one classifier matrix, one image at a time."""
    with torch.inference_mode():
        own = torch.stack([_class_vector(model, context, finding.prompts) for finding in findings])
        vectors = own
        if any(finding.negative_prompts for finding in findings):
            negative = [_class_vector(model, context, finding.negative_prompts) for finding in findings]
            vectors = own - torch.stack(negative)
        logits, maps = [], []
        for number, image in enumerate(pixels, start=1):
            vector, patches = model.visual(image[None])
            score = model.logit_scale.exp() * vector @ vectors.T
            logits.append(score if model.bias is None else score + model.bias)
            maps.append((patches @ vectors.T).transpose(1, 2).unflatten(-1, model.visual.grid))
            done(number)
    return Reference(logits=torch.cat(logits).numpy(), maps=torch.cat(maps).numpy())


def _class_vector(model: DualEncoder, context: int, prompts: Sequence[EncodedPrompt]) -> Tensor:
    """Return the mean of the unit vectors, at unit length: open_clip's zero-shot classifier of one class."""
    ids = torch.full((len(prompts), context), model.text.pad_id)
    for row, prompt in zip(ids, prompts, strict=True):
        tokens = torch.from_numpy(prompt.arrays["input_ids"][0])
        row[: len(tokens)] = tokens
    return nn.functional.normalize(model.text(ids).mean(dim=0), dim=-1)
