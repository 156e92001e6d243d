"""Dual encoders in open_clip's layout: a ViT of timm, a BERT, and the scaled cosine between them.

The text tower's vector is its pooled, projected state; the head multiplies the cosine with exp(logit_scale).

A file with ``classifier.weight`` is an image tower with a classifier instead: see `open_clip_tuned`.

Source: open_clip 3.3.0 (MIT); BiomedCLIP: Zhang et al., NEJM AI 2025, arXiv 2303.00915.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from promptray.export.checkpoint import load_checkpoint
from promptray.export.families.base import LoadedModel
from promptray.export.families.dual_encoder import HEAD, Cosine, describe_dual_encoder
from promptray.export.families.open_clip_checkpoint import (
    CURE,
    image_heads,
    image_note,
    image_tower,
    published_state,
    require_size,
)
from promptray.export.families.open_clip_folder import CONFIG, OpenClipFolder, read_open_clip_folder
from promptray.export.families.open_clip_pixels import preprocessing_of
from promptray.export.families.open_clip_tuned import is_tuned, load_tuned, tunable
from promptray.export.families.options import invalid_option
from promptray.export.layout import NO_KEY, described, fit_state_dict
from promptray.export.models.dual_encoder import DualEncoder, TextTower
from promptray.export.tunable import Tunable
from promptray.runtime.bundle.image_rules import Preprocessing
from promptray.runtime.bundle.manifest import TextRule
from promptray.runtime.errors import BuildError

# Buffers that older transformers stored; they count up from 0.
_IGNORED = r"embeddings\.position_ids$|embeddings\.token_type_ids$"


class OpenClipFamily:
    """Reads weights with ``open_clip_config.json`` beside them: both towers, or one with a classifier."""

    def load(self, checkpoint: Path, text_model: Path | None, options: Mapping[str, object]) -> LoadedModel:
        """Load the weights and the configuration beside them (see `Family.load`)."""
        content = load_checkpoint(checkpoint)
        state = published_state(content, checkpoint.name)
        if is_tuned(state):
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
        heads = None if is_tuned(state) else read_open_clip_folder(checkpoint, text_model).text.heads
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
    with described("the towers of the configuration", artefact, cure=CURE):
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
    rule = TextRule(
        head=HEAD,
        cleaning="open-clip",
        tokenizer="tokenizer.json",
        context=context,
        templates=["this is a photo of {}"],
    )
    weights = model.state_dict()
    return describe_dual_encoder(
        "open_clip",
        Cosine(model, context, model.text.pad_id, model.logit_scale.exp(), model.bias),
        rule,
        folder.text.tokenizer_json(context=context),
        text_weights={key: value for key, value in weights.items() if key.startswith("text.")},
        # A pair's logit is a difference, in which a learned bias would cancel: it was trained for one.
        relations=("independent", "exclusive", "ordinal", *(() if model.bias is not None else ("pair",))),
        preprocessing=preprocessing,
        # The cosine is multiplied by about 85: the original itself is 3.5e-5 off double precision.
        score_tolerance=2e-4,
        notes=notes,
    )
