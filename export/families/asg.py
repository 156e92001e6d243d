"""ASG: prompts against an image and its patches, and forty tags with attention maps.

One checkpoint holds two ways to score, which are two heads of one bundle:

* ``prompts``: the cosine of image and prompt, each through its projection, over the temperature. The map is
  the cosine of each patch, through a projection of its own, with the mean of the words' vectors.
* ``tags``: patches and forty queries go through a decoder, which gives one logit for each. The queries look
  at each other, so the tags are one unit: a logit holds in the company of all forty.

The image goes through its encoder once for both. The report encoder has no positions: it sees a bag of words,
and two orders of a sentence score the same.
Source: Li et al., MICCAI 2024, arXiv 2403.09294; the published training script, of which no line is here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from promptray.export.checkpoint import load_checkpoint
from promptray.export.families.asg_checkpoint import (
    DECODER,
    IMAGE,
    PROMPTS,
    REPORT,
    TAG_TEXT,
    TAGS,
    left_out,
    load_parts,
    published_state,
    settle_heads,
    temperature,
)
from promptray.export.families.asg_files import TAG_QUERIES
from promptray.export.families.asg_reference import score_prompts, score_tags
from promptray.export.families.asg_tags import TAG_NAMES, require_same_queries, stored_queries, tag_queries
from promptray.export.families.base import (
    INPUT_IDS,
    WORD_MATRIX,
    LoadedHead,
    LoadedModel,
    LoadedText,
    Side,
    answers,
    entry_of,
    tensor,
    weights_sha256,
)
from promptray.export.families.grey_input import read_one_plane
from promptray.export.families.options import invalid_option
from promptray.export.models.asg import REPORT_TOKENS, ImageEncoder, ReportEncoder, ViTEncoder
from promptray.export.models.query_decoder import QueryDecoder
from promptray.export.tokenizer import BertFolder, read_bert_folder
from promptray.runtime.bundle.image_rules import (
    CentreCrop,
    Greyscale,
    Normalise,
    PadSquare,
    Preprocessing,
    ResizeLongerSide,
)
from promptray.runtime.bundle.manifest import MapFacts, TensorFacts, TextRule


class ImageSide(nn.Module):
    """pixels (B, 3, H, W) -> what the heads take, in their order.

    For prompts image_vector (B, D) and patch_vectors (B, P, D), of unit length; for tags patches (B, P,
    width). The encoder runs once.
    """

    def __init__(self, encoder: ImageEncoder, heads: Sequence[str]) -> None:
        super().__init__()
        self.encoder, self.heads = encoder, tuple(heads)
        if PROMPTS in heads:
            self.to_global, self.to_local = encoder.global_embed.folded(), encoder.local_embed.folded()

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return them."""
        return self.finish(*self.encode(pixels))

    def encode(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return the tower's vector of the image (B, G), where it is asked for, and its patches (B, P, L)."""
        image, patches = self.encoder.features(pixels)
        return (image, patches) if PROMPTS in self.heads else (patches,)

    def finish(self, *encoded: Tensor) -> tuple[Tensor, ...]:
        """Return what `forward` does, of what `encode` gives."""
        image, patches = encoded[0], encoded[-1]
        found: tuple[Tensor, ...] = ()
        if PROMPTS in self.heads:
            vectors = self.to_global(image), self.to_local(patches)
            found = tuple(F.normalize(each, dim=-1) for each in vectors)
        return (*found, patches) if TAGS in self.heads else found


class TextSide(nn.Module):
    """input_ids (1, T), word_matrix (1, W, T) -> finding_vector (D,), words_vector (D,)."""

    def __init__(self, encoder: ReportEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.to_global, self.to_local = encoder.global_embed.folded(), encoder.local_embed.folded()

    def forward(self, input_ids: Tensor, word_matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Return the unit vectors of the sentence and of the mean of its words, [CLS] and [SEP] left out."""
        tokens = self.encoder(input_ids)
        words = F.normalize(self.to_local(word_matrix[:, 1:-1] @ tokens), dim=-1)
        sentence = F.normalize(self.to_global(tokens[:, 0]), dim=-1)
        return sentence[0], F.normalize(words.sum(dim=1), dim=-1)[0]


class PromptHead(nn.Module):
    """Cosines of image and prompts over the temperature, and of patches and the prompts' words."""

    def __init__(self, temperature: float, grid: tuple[int, int]) -> None:
        super().__init__()
        self.temperature, self.grid = temperature, grid

    def forward(
        self,
        image_vector: Tensor,
        patch_vectors: Tensor,
        finding_vector: Tensor,
        words_vector: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return logits (B, N) and maps (B, N, rows, columns)."""
        maps = (patch_vectors @ words_vector.T).transpose(1, 2).unflatten(-1, self.grid)
        return image_vector @ finding_vector.T / self.temperature, maps


class TagHead(nn.Module):
    """patches (B, P, width), tag_query (N, width) -> logits (B, N), maps (B, N, rows, columns)."""

    def __init__(self, decoder: QueryDecoder, grid: tuple[int, int]) -> None:
        super().__init__()
        self.decoder, self.grid = decoder, grid

    def forward(self, patches: Tensor, tag_query: Tensor) -> tuple[Tensor, Tensor]:
        """Return both."""
        outputs, attention = self.decoder(patches, tag_query)
        return outputs.squeeze(-1), attention.unflatten(-1, self.grid)


class ASGFamily:
    """Reads the checkpoint of the published training script."""

    def load(self, checkpoint: Path, text_model: Path | None, options: Mapping[str, object]) -> LoadedModel:
        """Load what the chosen heads need of the checkpoint (see `Family.load`)."""
        asked = _asked_heads(options)
        text = read_bert_folder(text_model)
        image_heads = options.get("image_heads", text.heads)
        if not (type(image_heads) is int and image_heads > 0):  # True is an int, too
            raise invalid_option("image_heads", "it cannot be used", "a positive integer", repr(image_heads))
        content = load_checkpoint(checkpoint)
        state = published_state(content, checkpoint.name)
        stored = None if text_model is None else text_model / TAG_QUERIES
        given = stored if stored is not None and stored.is_file() else None
        heads, left = settle_heads(state, asked, queries_given=given is not None, artefact=checkpoint.name)
        parts = load_parts(state, heads, text, image_heads=image_heads, artefact=checkpoint.name)
        image = _typed(parts[IMAGE], ImageEncoder)
        notes = [_image_note(image, image_heads), *left, *left_out(state, heads)]
        loaded: list[LoadedHead] = []
        text_side = None
        if PROMPTS in heads:
            report = _typed(parts[REPORT], ReportEncoder)
            scale, how = temperature(content, checkpoint.name)
            loaded.append(_prompt_head(image, report, scale))
            text_side = _text_side(report, text, loaded[0].bank)
            bag = "the text side sees no order: prompts of the same words score the same, whatever they mean"
            notes += [how, bag]
        if TAGS in heads:
            width = state[f"{DECODER}.mlp_head.0.weight"].shape[1]
            encoded = None if given is None else stored_queries(given, width=width)
            if TAG_TEXT in parts:
                own = tag_queries(parts[TAG_TEXT], text)
                require_same_queries(encoded, own)
                queries = own
            elif encoded is not None:
                queries = encoded
                notes.append(f"the tags came encoded, in {TAG_QUERIES}")
            loaded.append(_tag_head(image, _typed(parts[DECODER], QueryDecoder), queries))
            unit = "one unit; in training, absent, unsaid and uncertain were all 0"
            notes.append(f"{len(TAG_NAMES)} tags, {unit}")
        model = LoadedModel(
            family="asg",
            preprocessing=_preprocessing(image),
            image=Side(
                ImageSide(image, heads).eval(),
                [tensor("pixels", "batch", 3, image.size, image.size)],
                [feature for name in heads for feature in _features(image, name)],
            ),
            text=text_side,
            heads=loaded,
            notes=notes,
        )
        # ResNet's pads, and the means differ: it keeps its three planes.
        first = "patch_embed.proj" if isinstance(image, ViTEncoder) else "conv1"
        return read_one_plane(model, f"encoder.model.{first}")


FAMILY = ASGFamily()


def _asked_heads(options: Mapping[str, object]) -> list[str] | None:
    """Return the heads that the recipe asks for, in their own order; None where it does not say."""
    asked = options.get("heads")
    if asked is None:
        return None
    known = [name for name in (PROMPTS, TAGS) if isinstance(asked, list) and asked.count(name) == 1]
    if not isinstance(asked, list) or not asked or len(known) != len(asked):
        raise invalid_option("heads", "it cannot be used", f"a list of {PROMPTS} and {TAGS}", repr(asked))
    return known


def _image_note(encoder: nn.Module, heads: int) -> str:
    if isinstance(encoder, ViTEncoder):
        return f"image side: ViT with {heads} attention heads (no tensor tells)"
    return "image side: ResNet-50, not compared with an original: no checkpoint of it was at hand"


def _features(image: ImageEncoder, head: str) -> list[TensorFacts]:
    """Return what a head takes of an image."""
    count = image.grid[0] * image.grid[1]
    if head == TAGS:
        return [tensor("patches", "batch", count, image.local_embed.width)]
    width = image.global_embed.out
    return [tensor("image_vector", "batch", width), tensor("patch_vectors", "batch", count, width)]


def _prompt_head(image: ImageEncoder, report: ReportEncoder, scale: float) -> LoadedHead:
    bank = [
        tensor("finding_vector", "prompts", image.global_embed.out),
        tensor("words_vector", "prompts", image.local_embed.out),
    ]
    features = _features(image, PROMPTS)
    return LoadedHead(
        name=PROMPTS,
        set="free",
        side=Side(PromptHead(scale, image.grid).eval(), [*features, *bank], answers(image.grid)),
        bank=bank,
        relations=("independent", "exclusive", "pair"),
        activation="none",
        map=MapFacts(
            grid=list(image.grid),
            kind="similarity",
            meaning="cosine of each patch with the mean of the finding's words, through the projections "
            "that were trained to align regions with sentences; no segmentation",
            tolerance=5e-6,
        ),
        ensemble="mean-unit",
        identity={"text_weights": weights_sha256(report.state_dict()), "layout": "asg-sentence-words-1"},
        reference=partial(score_prompts, image, report, scale),
        score_tolerance=2e-5,
    )


def _text_side(report: ReportEncoder, text: BertFolder, bank: Sequence[TensorFacts]) -> LoadedText:
    rule = TextRule(
        head=PROMPTS,
        cleaning="asg-report",
        tokenizer="tokenizer.json",
        context=REPORT_TOKENS,
        templates=["{}"],
        order="ignored",
    )
    side = Side(TextSide(report).eval(), [INPUT_IDS, WORD_MATRIX], entry_of(bank))
    return LoadedText(rule, text.tokenizer_json(context=REPORT_TOKENS), side)


def _tag_head(image: ImageEncoder, decoder: QueryDecoder, queries: Tensor) -> LoadedHead:
    bank = [tensor("tag_query", "prompts", queries.shape[1])]
    features = _features(image, TAGS)
    return LoadedHead(
        name=TAGS,
        set="fixed",
        side=Side(TagHead(decoder, image.grid).eval(), [*features, *bank], answers(image.grid)),
        bank=bank,
        classes={tag: {"tag_query": query.numpy()} for tag, query in zip(TAG_NAMES, queries, strict=True)},
        relations=("independent",),
        activation="sigmoid",
        map=MapFacts(
            grid=list(image.grid),
            kind="attention",
            meaning="attention of the tag on the image's patches in the last layer, mean over heads; "
            "not a proof",
            tolerance=2e-6,
        ),
        identity={
            "queries": hashlib.sha256(queries.numpy().tobytes()).hexdigest(),
            "layout": "tag-queries-1",
        },
        reference=partial(score_tags, image, decoder, queries, TAG_NAMES),
        score_tolerance=2e-5,
    )


def _typed(module: nn.Module, kind: type[Any]) -> Any:
    """Return a part as what it was made as: a ModuleDict does not know what it holds."""
    if not isinstance(module, kind):
        raise TypeError(f"{type(module).__name__} is no {kind.__name__}")
    return module


def _preprocessing(image: ImageEncoder) -> Preprocessing:
    """Return the validation transform of the script, which albumentations 1.4.0 does with OpenCV."""
    return Preprocessing(
        greyscale=Greyscale(),
        steps=[
            ResizeLongerSide(size=256, interpolation="linear", rounding="nearest"),
            PadSquare(size=256, value=0),
            CentreCrop(size=image.size),
        ],
        normalise=Normalise(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
        channels=3,
        height=image.size,
        width=image.size,
    )
