"""Dual encoders in open_clip's layout: a ViT of timm, a BERT, and the scaled cosine between them.

All that scoring needs of a prompt is one vector, so the bank is a matrix and the head one product:

* image side: ViT, projection, unit length; the patches go the same way, for the map;
* text side: BERT, pooling, projection, unit length: one vector for each wording, averaged to the finding's;
* head: exp(logit_scale) times the cosine; the map is the cosine of each patch with the finding's vector.

Source: open_clip 3.3.0 (MIT); BiomedCLIP: Zhang et al., NEJM AI 2025, arXiv 2303.00915.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from promptray.export.checkpoint import load_checkpoint, tensors
from promptray.export.families.base import LoadedModel, Reference, Side, weights_sha256
from promptray.export.families.open_clip_folder import CONFIG, OpenClipFolder, read_open_clip_folder
from promptray.export.layout import fit_state_dict
from promptray.export.models.class_matrix import ClassMatrix
from promptray.export.models.dual_encoder import DualEncoder, ImageTower, TextTower
from promptray.runtime.bundle.manifest import (
    CentreCrop,
    Greyscale,
    Head,
    MapFacts,
    Normalise,
    PadSquare,
    Preprocessing,
    ResizeLongerSide,
    ResizeShorterSide,
    Squash,
    Step,
    TensorFacts,
    TextRule,
)
from promptray.runtime.errors import BuildError
from promptray.runtime.text import EncodedFinding, EncodedPrompt

# Buffers that older transformers stored; they count up from 0.
_IGNORED = r"embeddings\.position_ids$|embeddings\.token_type_ids$"
_OPTIONAL = r"(?!)"
_RESIZES = ("shortest", "longest", "squash")


class ImageSide(nn.Module):
    """pixels (B, 3, H, W) -> image_vector (B, D), patch_vectors (B, P, D), all of unit length."""

    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.visual = model.visual

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return both."""
        image, patches = self.visual(pixels)
        return image, patches


class TextSide(nn.Module):
    """input_ids (1, T) -> finding_vector (D,), the unit vector of one wording."""

    def __init__(self, model: DualEncoder) -> None:
        super().__init__()
        self.text = model.text

    def forward(self, input_ids: Tensor) -> tuple[Tensor]:
        """Return it."""
        return (self.text(input_ids)[0],)


class OpenClipFamily:
    """Reads weights with ``open_clip_config.json`` beside them."""

    def load(self, checkpoint: Path, text_model: Path | None, options: Mapping[str, object]) -> LoadedModel:
        """Load the weights and the configuration beside them (see `Family.load`)."""
        folder = read_open_clip_folder(checkpoint, text_model)
        state = _published_state(load_checkpoint(checkpoint), checkpoint.name)
        model, notes = _model(folder, state, options, checkpoint.name)
        text = model.text.transformer.config
        folder.text.require_fit(
            width=text.hidden_size, vocabulary=text.vocab_size, layers=text.num_hidden_layers
        )
        _require_context(folder, text.max_position_embeddings)
        return _describe(model, folder, _resize(folder, options), notes)


FAMILY = OpenClipFamily()


def _published_state(content: Mapping[str, Any], artefact: str) -> dict[str, Tensor]:
    """Return the tensors, float32, of a published state dict or of a checkpoint of open_clip's training."""
    nested = content.get("state_dict")
    found = dict(tensors(nested if isinstance(nested, Mapping) else content))
    if found and all(key.startswith("module.") for key in found):  # as data-parallel training saves it
        found = {key.removeprefix("module."): tensor for key, tensor in found.items()}
    if not any(key.startswith("visual.trunk.") for key in found):
        raise BuildError(
            "checkpoint.layout",
            "no tensor of this checkpoint belongs to an image tower of timm in open_clip's layout",
            artefact=artefact,
            expected="keys 'visual.trunk.*', 'visual.head.*', 'text.transformer.*', 'text.proj.*'",
            found=", ".join(list(found or content)[:5]),
            cure="check that the recipe names the right family and file",
        )
    return {key: value.float() if value.is_floating_point() else value for key, value in found.items()}


def _model(
    folder: OpenClipFolder, state: Mapping[str, Tensor], options: Mapping[str, object], artefact: str
) -> tuple[DualEncoder, list[str]]:
    """Make the module that the configuration and the tensors describe, with the weights in it."""
    config = folder.config.model_cfg
    vision, text = config.vision_cfg, config.text_cfg
    heads = _image_heads(options, folder.text.heads)
    image_tower = ImageTower(
        timm_name=vision.timm_model_name,
        image_size=vision.image_size,
        pool=vision.timm_pool,
        projection=vision.timm_proj,
        projection_bias=vision.timm_proj_bias,
        heads=heads,
    )
    text_tower = TextTower(
        heads=folder.text.heads,
        pooler=text.hf_pooler_type,
        projection=text.hf_proj_type,
        pad_id=folder.text.vocabulary.index("[PAD]"),
    )
    try:
        model = DualEncoder(state, image_tower, text_tower, config.embed_dim)
    except (LookupError, ValueError, TypeError, ArithmeticError, RuntimeError, AssertionError) as error:
        raise BuildError(
            "checkpoint.layout",
            f"the tensors and the configuration do not describe a dual encoder ({str(error)[:200]})",
            artefact=artefact,
            cure="check that the configuration beside the checkpoint is its own, and image_heads",
        ) from error
    model.eval().requires_grad_(False)
    _require_size(model, state, vision.image_size, artefact)
    fit_state_dict(model, state, artefact=artefact, optional=_OPTIONAL, ignored=_IGNORED)
    used = model.visual.heads
    if "image_heads" in options and used != heads:
        raise _invalid_option("image_heads", f"{used}, as {vision.timm_model_name} has", str(heads))
    if image_tower.known_to_timm:
        note = f"{used} attention heads (as timm has it)"
    else:
        pool = f"{vision.timm_pool or 'token'} pooling"
        note = (
            f"{used} attention heads, exact (erf) GELU and {pool}: a plain ViT, since timm knows no such name"
        )
    return model, [f"image side: {vision.timm_model_name} with {note}"]


def _image_heads(options: Mapping[str, object], default: int) -> int:
    heads = options.get("image_heads", default)
    if not (type(heads) is int and heads > 0):  # True is an int, too
        raise _invalid_option("image_heads", "a positive integer", repr(heads))
    return heads


def _resize(folder: OpenClipFolder, options: Mapping[str, object]) -> str:
    mode = options.get("resize", folder.config.preprocess_cfg.resize_mode)
    if not (isinstance(mode, str) and mode in _RESIZES):
        raise _invalid_option("resize", " or ".join(_RESIZES), repr(mode))
    return mode


def _invalid_option(name: str, expected: str, found: str) -> BuildError:
    return BuildError(
        "recipe.invalid",
        f"{name} cannot be used",
        artefact=f"model_options.{name}",
        expected=expected,
        found=found[:80],
        cure="`promptray families` lists the options",
    )


def _require_size(model: DualEncoder, state: Mapping[str, Tensor], stated: int, artefact: str) -> None:
    table = state.get("visual.trunk.pos_embed")
    if table is not None and table.shape[1:2] != (model.visual.positions,):
        raise BuildError(
            "checkpoint.config",
            "the position table has another length than the configuration's image size gives",
            artefact=artefact,
            expected=f"{model.visual.positions} positions for {stated} x {stated} pixels",
            found=f"a table of shape {tuple(table.shape)}",
            cure="put the configuration published with the checkpoint beside it",
        )


def _require_context(folder: OpenClipFolder, positions: int) -> None:
    stated = folder.config.model_cfg.text_cfg.context_length
    if stated > positions:
        raise BuildError(
            "checkpoint.config",
            "context_length exceeds the positions of the text tower",
            artefact=CONFIG,
            expected=f"at most {positions}",
            found=str(stated),
            cure="put the configuration published with the checkpoint beside it",
        )


def _describe(model: DualEncoder, folder: OpenClipFolder, resize: str, notes: Sequence[str]) -> LoadedModel:
    context = folder.config.model_cfg.text_cfg.context_length
    rows, columns = model.visual.grid
    width = folder.config.model_cfg.embed_dim
    head = Head(
        name="findings",
        bank="free",
        relation="independent",
        activation="none",
        map=MapFacts(
            grid=[rows, columns],
            kind="similarity",
            meaning="cosine of each patch, through the final norm and the projection, with the finding's "
            "vector; patches were not trained to it, so it shows likeness and proves nothing",
        ),
    )
    image = [
        _facts("image_vector", "batch", width),
        _facts("patch_vectors", "batch", rows * columns, width),
    ]
    state = model.state_dict()
    return LoadedModel(
        family="open_clip",
        sides=(
            Side("image", ImageSide(model).eval(), [_facts("pixels", "batch", 3, *model.visual.size)], image),
            Side(
                "text",
                TextSide(model).eval(),
                [_facts("input_ids", 1, "tokens", dtype="int64")],
                [_facts("finding_vector", width)],
            ),
            Side(
                "head",
                ClassMatrix(grid=model.visual.grid, scale=model.logit_scale.exp(), bias=model.bias),
                [*image, _facts("finding_vector", "prompts", width)],
                [_facts("logits", "batch", "prompts"), _facts("maps", "batch", "prompts", rows, columns)],
            ),
        ),
        preprocessing=_preprocessing(folder, resize),
        text=TextRule(
            cleaning="open-clip",
            tokenizer="tokenizer.json",
            context=context,
            templates=["this is a photo of {}"],
        ),
        tokenizer=folder.text.tokenizer_json(context=context),
        bank=[_facts("finding_vector", "prompts", width)],
        head=head,
        # A pair's logit is a difference, in which a learned bias would cancel: it was trained for one.
        relations=("independent", "exclusive", "pair")
        if model.bias is None
        else ("independent", "exclusive"),
        ensemble="mean-unit",
        row_buckets=(),
        row_bias=None,
        identity={
            "text_weights": weights_sha256({k: v for k, v in state.items() if k.startswith("text.")}),
            "layout": "unit-vector-1",
        },
        reference=partial(_reference, model, context),
        # The cosine is multiplied by about 85: the original itself is 3.5e-5 off double precision.
        score_tolerance=2e-4,
        map_tolerance=1e-5,
        notes=(*notes, f"resize: {resize}"),
    )


def _facts(name: str, *dims: int | str, dtype: Any = "float32") -> TensorFacts:
    return TensorFacts(name=name, dtype=dtype, dims=list(dims))


def _preprocessing(folder: OpenClipFolder, resize: str) -> Preprocessing:
    config, size = folder.config.preprocess_cfg, folder.config.model_cfg.vision_cfg.image_size
    filter_ = config.interpolation
    steps: dict[str, list[Step]] = {
        "shortest": [ResizeShorterSide(size=size, interpolation=filter_), CentreCrop(size=size)],
        "longest": [
            ResizeLongerSide(size=size, interpolation=filter_, rounding="nearest"),
            PadSquare(size=size, value=config.fill_color),
        ],
        "squash": [Squash(size=size, interpolation=filter_)],
    }
    return Preprocessing(
        greyscale=Greyscale(),
        steps=steps[resize],
        normalise=Normalise(mean=list(config.mean), std=list(config.std)),
        channels=3,
        height=size,
        width=size,
        colour="rgb",
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
