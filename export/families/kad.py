"""KAD: findings of any list ask an image as the queries of one decoder, each with a map of its attention.

The image side gives a vector for each position of a ResNet-50, the text side one for each finding's term. In
the decoder, which ASG shares, the findings look at each other before they look at the image, so a list is one
unit: a logit holds in the company of just these findings. The list itself is free when a bundle is built. Two
outputs of each query, absent and present, become one logit, their difference; its sigmoid is the softmax.

Read in the published source, at several commits: the three state dicts that the training script saves and
the test scripts load strictly (``image_encoder``, ``text_encoder``, ``model``), the modules that give their
keys, the input norm, the decoder, which output is "present", resize and normalisation, the tokenizer and its
length. The text encoder of the checkpoint replaces that of the separate Med-KEBERT file, so that file is not
needed. Not verified: the published weights were not at hand; neither their keys nor their scores were seen.

Source: Zhang et al., Nature Communications 2023, arXiv 2302.14042; xiaoman-zhang/KAD (MIT), of which no line
is here.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from promptray.export.checkpoint import load_checkpoint, plain, tensors
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
from promptray.export.layout import check_tied, described, fit_state_dict, sizes_of
from promptray.export.models.query_decoder import HEADS, QueryDecoder, query_decoder
from promptray.export.models.tower_shapes import pooled_bert, resnet_stages
from promptray.export.tokenizer import BertFolder, read_bert_folder
from promptray.runtime.bundle.image_rules import Greyscale, Normalise, Preprocessing, Squash
from promptray.runtime.bundle.manifest import MapFacts, TextRule
from promptray.runtime.bundle.validate_preprocessing import LARGEST_NETWORK
from promptray.runtime.errors import BuildError
from promptray.runtime.text import EncodedFinding

HEAD = "findings"
#: Tokens of a finding in the published test scripts, [CLS] and [SEP] among them.
CONTEXT = 256
_PARTS = ("image_encoder", "text_encoder", "model")
#: The places in ``res_features`` of what torchvision names: the image side holds its ResNet under both.
_RESNET_NAMES = {0: "conv1", 1: "bn1", 4: "layer1", 5: "layer2", 6: "layer3", 7: "layer4"}
# The ResNet once more, with the stages and the classifier that are not used; temperatures of the training;
# a buffer of older transformers that counts up from 0; counters of batch norms.
_IGNORED = (
    r"^image_encoder\.resnet\.|^(text_encoder|model)\.logit_scale$|embeddings\.position_ids$"
    r"|num_batches_tracked$"
)
_COUNTERS = r"num_batches_tracked$"


class ImageEncoder(nn.Module):
    """The first stages of a ResNet, and two linear layers at every position."""

    def __init__(self, state: Mapping[str, Tensor], stem: str, width: int) -> None:
        super().__init__()
        self.res_features = resnet_stages(state, f"{stem}res_features.")
        last_block: Any = self.res_features[-1]
        (hidden,) = sizes_of(state, f"{stem}res_l1.bias", None)
        self.res_l1 = nn.Linear(last_block[-1].conv3.out_channels, hidden)
        self.res_l2 = nn.Linear(hidden, width)

    @property
    def stride(self) -> int:
        """Pixels a side of one position: 16 of three stages, 32 of four."""
        return 1 << (len(self.res_features) - 3)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (B, 3, H, W) to positions (B, H / stride * W / stride, width), row by row."""
        positions = self.res_features(pixels).flatten(2).transpose(1, 2)
        answer: Tensor = self.res_l2(F.relu(self.res_l1(positions)))
        return answer


class QueryEncoder(nn.Module):
    """A BERT's pooler output through two linear layers, not brought to unit length."""

    def __init__(self, state: Mapping[str, Tensor], stem: str, width: int, heads: int) -> None:
        super().__init__()
        self.bert_model = pooled_bert(state, f"{stem}bert_model.", heads=heads)
        (hidden,) = sizes_of(state, f"{stem}mlp_embed.0.bias", None)
        pooled = nn.Linear(self.bert_model.config.hidden_size, hidden)
        self.mlp_embed = nn.Sequential(pooled, nn.GELU(), nn.Linear(hidden, width))

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Map token ids (N, T) int64 to queries (N, width)."""
        found = self.bert_model(input_ids=input_ids, attention_mask=attention_mask)
        queries: Tensor = self.mlp_embed(found.pooler_output)
        return queries


class KAD(nn.Module):
    """The three parts under the names that the training script saves them by."""

    def __init__(self, state: Mapping[str, Tensor], bert_heads: int) -> None:
        super().__init__()
        self.model = query_decoder(state, "model.", input_norm=True)
        self.image_encoder = ImageEncoder(state, "image_encoder.", self.width)
        self.text_encoder = QueryEncoder(state, "text_encoder.", self.width, bert_heads)

    @property
    def width(self) -> int:
        """Of positions and queries."""
        return self.model.decoder_norm.normalized_shape[0]


class ImageSide(nn.Module):
    """pixels (B, 3, H, W) -> positions (B, P, width)."""

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        """Return them."""
        return (self.encoder(pixels),)


class TextSide(nn.Module):
    """input_ids (1, T) -> query (width,)."""

    def __init__(self, encoder: QueryEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor) -> tuple[Tensor]:
        """Return it."""
        return (self.encoder(input_ids)[0],)


class FindingHead(nn.Module):
    """positions (B, P, width), query (N, width) -> logits (B, N), maps (B, N, rows, columns)."""

    def __init__(self, decoder: QueryDecoder, grid: tuple[int, int]) -> None:
        super().__init__()
        self.decoder, self.grid = decoder, grid

    def forward(self, positions: Tensor, query: Tensor) -> tuple[Tensor, Tensor]:
        """Return both."""
        outputs, attention = self.decoder(positions, query)
        return outputs[..., 1] - outputs[..., 0], attention.unflatten(-1, self.grid)


class KADFamily:
    """Reads the one file that the training script saves, and the tokenizer's folder."""

    def load(self, checkpoint: Path, text_model: Path | None, options: Mapping[str, object]) -> LoadedModel:
        """Load the three parts (see `Family.load`)."""
        text = _lower_case(read_bert_folder(text_model))
        content = load_checkpoint(checkpoint)
        model = _model(_published_state(content, checkpoint.name), text, checkpoint.name)
        size, note = _image_size(model.image_encoder, content, options)
        return _describe(model, text, size, note)


FAMILY = KADFamily()


def _lower_case(text: BertFolder) -> BertFolder:
    """The scripts ask their tokenizer for lower case, whatever its own settings say."""
    return dataclasses.replace(text, settings=dataclasses.replace(text.settings, lowercase=True))


def _published_state(content: Mapping[str, Any], artefact: str) -> dict[str, Tensor]:
    """Return the tensors of the three parts, float32, each after its part's name.

    Raises
    ------
    BuildError
        ``checkpoint.layout`` where a part is missing or is of another kind.
    """
    missing = [part for part in _PARTS if not isinstance(content.get(part), Mapping)]
    if missing:
        raise BuildError(
            "checkpoint.layout",
            f"the checkpoint lacks {' and '.join(missing)}",
            artefact=artefact,
            expected="the state dicts 'image_encoder', 'text_encoder' and 'model', as the training script "
            "saves them in one file",
            found=", ".join(list(content)[:8]),
            cure="check that the recipe names the right family and file; the separate file of the knowledge "
            "encoder is not needed",
        )
    state = {f"{part}.{key}": value for part in _PARTS for key, value in tensors(content[part])}
    if not any(key.startswith("image_encoder.res_features.") for key in state):
        raise BuildError(
            "checkpoint.layout",
            "the image side is none of the ResNets of the published weights",
            artefact=artefact,
            expected="keys 'image_encoder.res_features.*', 'image_encoder.res_l1.*' and '.res_l2.*'",
            found=", ".join([key for key in state if key.startswith("image_encoder.")][:5]),
            cure="use the ResNet-50 checkpoint; DenseNet and ViT image sides are not supported",
        )
    return state


def _model(state: Mapping[str, Tensor], text: BertFolder, artefact: str) -> KAD:
    """Make the module that the tensors describe, with the weights in it."""
    with described(
        "KAD",
        artefact,
        cure="check family and file; num_attention_heads of the text model must be its own",
    ):
        model = KAD(state, text.heads)
    outputs = state["model.mlp_head.0.weight"].shape[0]
    if outputs != 2:
        raise BuildError(
            "checkpoint.layout",
            "the decoder does not give two outputs for each finding, so which one says 'present' is unknown",
            artefact=artefact,
            expected="model.mlp_head.0.weight of shape (2, width)",
            found=str(tuple(state["model.mlp_head.0.weight"].shape)),
            cure="check that the recipe names the right family and file",
        )
    fit_state_dict(model, state, artefact=artefact, optional=_COUNTERS, ignored=_IGNORED)
    for place, name in _RESNET_NAMES.items():
        check_tied(state, f"image_encoder.res_features.{place}", f"image_encoder.resnet.{name}", artefact)
    check_tied(state, "model.decoder_norm", "model.decoder.norm", artefact)
    bert = model.text_encoder.bert_model.config
    text.require_fit(width=bert.hidden_size, vocabulary=bert.vocab_size, layers=bert.num_hidden_layers)
    if bert.max_position_embeddings < CONTEXT:
        raise BuildError(
            "checkpoint.layout",
            "the text side has fewer positions than the findings have tokens in the published scripts",
            artefact=artefact,
            expected=f"at least {CONTEXT} positions",
            found=str(bert.max_position_embeddings),
            cure="check that the recipe names the right family and file",
        )
    return model.eval().requires_grad_(False)


def _image_size(
    encoder: ImageEncoder, content: Mapping[str, Any], options: Mapping[str, object]
) -> tuple[int, str]:
    """Return the side of the input and how it is known: no tensor tells.

    Raises
    ------
    BuildError
        ``recipe.invalid`` where nothing tells it, or the stages do not divide what tells it.
    """
    config = plain(content.get("config"))
    stated = config.get("img_res") if isinstance(config, Mapping) else None
    known = (
        (options.get("image_size"), "as the recipe says"),
        (stated, "as the checkpoint's config says"),
        (224 if encoder.stride == 16 else None, "not verified: what the source uses this stride with"),
    )
    size, how = next((each for each in known if each[0] is not None), (None, ""))
    if type(size) is not int or not 0 < size <= LARGEST_NETWORK or size % encoder.stride:
        raise BuildError(
            "recipe.invalid",
            "no tensor tells the side of the image" if size is None else "image_size cannot be used",
            artefact="model_options.image_size",
            expected=f"a multiple of {encoder.stride} up to {LARGEST_NETWORK}; published with stride 32 are "
            "KAD-512 and KAD-1024",
            found="none, also in the checkpoint's config" if size is None else repr(size)[:80],
            cure="set model_options.image_size to what the model was trained with",
        )
    return size, f"image side: ResNet of stride {encoder.stride} on {size} x {size} pixels, {how}"


def _describe(model: KAD, text: BertFolder, size: int, note: str) -> LoadedModel:
    grid = [size // model.image_encoder.stride] * 2
    positions = tensor("positions", "batch", grid[0] * grid[1], model.width)
    query = tensor("query", "prompts", model.width)
    rule = TextRule(
        head=HEAD, cleaning="white-space", tokenizer="tokenizer.json", context=CONTEXT, templates=["{}"]
    )
    head = LoadedHead(
        name=HEAD,
        set="fixed",
        side=Side(FindingHead(model.model, (grid[0], grid[1])).eval(), [positions, query], answers(grid)),
        bank=[query],
        relations=("independent",),
        activation="sigmoid",
        map=MapFacts(
            grid=grid,
            kind="attention",
            meaning="attention of the finding on the image's positions in the last layer, mean over "
            "heads; not a proof",
            tolerance=2e-6,
        ),
        identity={
            "text_weights": weights_sha256(model.text_encoder.state_dict()),
            "layout": "kad-query-1",
        },
        reference=partial(_reference, model, (grid[0], grid[1])),
        score_tolerance=2e-5,
    )
    text_side = Side(TextSide(model.text_encoder).eval(), [INPUT_IDS], entry_of([query]))
    return LoadedModel(
        family="kad",
        preprocessing=Preprocessing(
            greyscale=Greyscale(),
            steps=[Squash(size=size, interpolation="bicubic")],
            normalise=Normalise(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
            channels=3,
            height=size,
            width=size,
            colour="rgb",
        ),
        image=Side(
            ImageSide(model.image_encoder).eval(), [tensor("pixels", "batch", 3, size, size)], [positions]
        ),
        text=LoadedText(rule, text.tokenizer_json(context=CONTEXT), text_side),
        heads=[head],
        notes=(
            note,
            f"decoder: {HEADS} attention heads, as in the source (no tensor tells)",
            "the findings are one unit: with others beside it, the same finding scores otherwise",
            "layout and arithmetic as read in the published source; not compared with the published weights, "
            "which were not at hand",
        ),
    )


def _reference(
    model: KAD,
    grid: tuple[int, int],
    pixels: Tensor,
    findings: Sequence[EncodedFinding],
    done: Callable[[int], None] = lambda _: None,
) -> Reference:
    """Score as the test scripts do: terms padded to their full length, all findings in one call."""
    logits, maps = [], []
    with torch.inference_mode():
        queries = torch.cat([_query(model.text_encoder, finding) for finding in findings])
        for number, one in enumerate(pixels, start=1):
            outputs, attention = model.model(model.image_encoder(one[None]), queries)
            absent, present = outputs.unbind(-1)
            logits.append(present - absent)
            maps.append(attention.unflatten(-1, grid))
            done(number)
    return Reference(logits=torch.cat(logits).numpy(), maps=torch.cat(maps).numpy())


def _query(encoder: QueryEncoder, finding: EncodedFinding) -> Tensor:
    ids, mask = (torch.zeros((1, CONTEXT), dtype=torch.int64) for _ in range(2))
    tokens = torch.from_numpy(finding.prompts[0].arrays["input_ids"])
    ids[:, : tokens.shape[1]], mask[:, : tokens.shape[1]] = tokens, 1
    queries: Tensor = encoder(ids, mask)
    return queries
