"""ASG: prompts against an image and its patches, or forty tags with attention maps.

One checkpoint holds two ways to score, of which the recipe takes one:

* ``prompts``: the cosine of image and prompt, each through its projection, over the temperature. The map is
  the cosine of each patch, through a projection of its own, with the mean of the words' vectors.
* ``tags``: patches and forty queries go through a decoder, which gives one logit for each. The queries look
  at each other, so the tags are one unit: a logit holds in the company of all forty.

The report encoder has no positions: it sees a bag of words, and two orders of a sentence score the same.
Source: Li et al., MICCAI 2024, arXiv 2403.09294; the published training script, of which no line is here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from promptray.export.checkpoint import load_checkpoint
from promptray.export.families.asg_checkpoint import (
    DECODER,
    IMAGE,
    PARTS,
    REPORT,
    TAG_TEXT,
    left_out,
    load_parts,
    published_state,
    temperature,
)
from promptray.export.families.asg_files import TAG_QUERIES
from promptray.export.families.asg_reference import score_prompts, score_tags
from promptray.export.families.base import LoadedModel, Side, weights_sha256
from promptray.export.models.asg import REPORT_TOKENS, TAG_TOKENS, ImageEncoder, ReportEncoder, ViTEncoder
from promptray.export.models.query_decoder import QueryDecoder
from promptray.export.tokenizer import BertFolder, read_bert_folder
from promptray.runtime.bundle.manifest import (
    CentreCrop,
    Greyscale,
    Head,
    MapFacts,
    Normalise,
    PadSquare,
    Preprocessing,
    ResizeLongerSide,
    TensorFacts,
    TextRule,
)
from promptray.runtime.errors import BuildError

#: The phrases whose encodings are the decoder's queries, in the published order.
TAGS = (
    "pleural effusion", "opacity", "pneumothorax", "edema", "atelectasis", "tube", "consolidation",
    "enlarged cardiomediastinum", "tip", "pneumonia", "line", "cardiomegaly", "fracture",
    "calcification", "device", "engorgement", "nodule", "wire", "pacemaker", "pleural thicken",
    "marking", "scar", "hyperinflate", "blunt", "collapse", "emphysema", "aerate", "mass",
    "infiltration", "obscure", "deformity", "hernia", "drainage", "distention", "shift", "stent",
    "lesion", "hardware", "dilation", "aspiration",
)  # fmt: skip


class PromptImageSide(nn.Module):
    """pixels (B, 3, H, W) -> image_vector (B, D) and patch_vectors (B, P, D), of unit length."""

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.to_global, self.to_local = encoder.global_embed.folded(), encoder.local_embed.folded()

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Return both."""
        image, patches = self.encoder.features(pixels)
        return F.normalize(self.to_global(image), dim=-1), F.normalize(self.to_local(patches), dim=-1)


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


class PatchSide(nn.Module):
    """pixels (B, 3, H, W) -> patches (B, P, width)."""

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, pixels: Tensor) -> tuple[Tensor]:
        """Return them."""
        return (self.encoder.features(pixels)[1],)


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
        """Load what the chosen head needs of the checkpoint (see `Family.load`)."""
        head = options.get("head", "prompts")
        if not (isinstance(head, str) and head in PARTS):
            raise _option("head", " or ".join(PARTS), head)
        text = read_bert_folder(text_model)
        heads = options.get("image_heads", text.heads)
        if not (type(heads) is int and heads > 0):  # True is an int, too
            raise _option("image_heads", "a positive integer", heads)
        content = load_checkpoint(checkpoint)
        state = published_state(content, checkpoint.name)
        stored = None if text_model is None else text_model / TAG_QUERIES
        given = stored if stored is not None and stored.is_file() else None
        parts = load_parts(
            state,
            head,
            text,
            image_heads=heads,
            queries_given=given is not None,
            artefact=checkpoint.name,
        )
        notes = [_image_note(parts[IMAGE], heads), *left_out(state, head)]
        if head == "tags":
            if TAG_TEXT in parts or given is None:
                return _describe_tags(parts, _tag_queries(parts[TAG_TEXT], text), notes)
            queries = _stored_queries(given, width=state[f"{DECODER}.mlp_head.0.weight"].shape[1])
            return _describe_tags(parts, queries, [*notes, f"the tags came encoded, in {TAG_QUERIES}"])
        scale, how = temperature(content, checkpoint.name)
        bag = "the text side sees no order: prompts of the same words score the same, whatever they mean"
        return _describe_prompts(parts, text, scale, [*notes, how, bag])


FAMILY = ASGFamily()


def _option(name: str, expected: str, found: object) -> BuildError:
    return BuildError(
        "recipe.invalid",
        f"{name} cannot be used",
        artefact=f"model_options.{name}",
        expected=expected,
        found=repr(found)[:80],
        cure="`promptray families` lists the options",
    )


def _image_note(encoder: nn.Module, heads: int) -> str:
    if isinstance(encoder, ViTEncoder):
        return f"image side: ViT with {heads} attention heads (no tensor tells)"
    return "image side: ResNet-50, not compared with an original: no checkpoint of it was at hand"


def _describe_prompts(
    parts: nn.ModuleDict, text: BertFolder, scale: float, notes: Sequence[str]
) -> LoadedModel:
    image, report = _typed(parts[IMAGE], ImageEncoder), _typed(parts[REPORT], ReportEncoder)
    rows, columns = image.grid
    width = image.global_embed.out
    vectors = [
        _facts("image_vector", "batch", width),
        _facts("patch_vectors", "batch", rows * columns, width),
    ]
    bank = [
        _facts("finding_vector", "prompts", width),
        _facts("words_vector", "prompts", image.local_embed.out),
    ]
    return LoadedModel(
        family="asg",
        sides=(
            Side("image", PromptImageSide(image).eval(), [_pixels(image)], vectors),
            Side(
                "text",
                TextSide(report).eval(),
                [
                    _facts("input_ids", 1, "tokens", dtype="int64"),
                    _facts("word_matrix", 1, "words", "tokens"),
                ],
                [_facts(tensor.name, *tensor.dims[1:]) for tensor in bank],
            ),
            Side("head", PromptHead(scale, image.grid).eval(), [*vectors, *bank], _answers(image)),
        ),
        preprocessing=_preprocessing(image),
        text=TextRule(
            cleaning="asg-report",
            tokenizer="tokenizer.json",
            context=REPORT_TOKENS,
            templates=["{}"],
            order="ignored",
        ),
        tokenizer=text.tokenizer_json(context=REPORT_TOKENS),
        bank=bank,
        head=Head(
            name="findings",
            bank="free",
            relation="independent",
            activation="none",
            map=MapFacts(
                grid=[rows, columns],
                kind="similarity",
                meaning="cosine of each patch with the mean of the finding's words, through the projections "
                "that were trained to align regions with sentences; no segmentation",
            ),
        ),
        relations=("independent", "exclusive", "pair"),
        ensemble="mean-unit",
        row_buckets=(),
        row_bias=None,
        identity={"text_weights": weights_sha256(report.state_dict()), "layout": "asg-sentence-words-1"},
        reference=partial(score_prompts, image, report, scale),
        score_tolerance=2e-5,
        map_tolerance=5e-6,
        notes=notes,
    )


def _describe_tags(parts: nn.ModuleDict, queries: Tensor, notes: Sequence[str]) -> LoadedModel:
    image, decoder = _typed(parts[IMAGE], ImageEncoder), _typed(parts[DECODER], QueryDecoder)
    rows, columns = image.grid
    width = queries.shape[1]
    patches, bank = _facts("patches", "batch", rows * columns, width), _facts("tag_query", "prompts", width)
    return LoadedModel(
        family="asg",
        sides=(
            Side("image", PatchSide(image).eval(), [_pixels(image)], [patches]),
            Side("head", TagHead(decoder, image.grid).eval(), [patches, bank], _answers(image)),
        ),
        preprocessing=_preprocessing(image),
        text=None,
        tokenizer=None,
        bank=[bank],
        classes={tag: {"tag_query": query.numpy()} for tag, query in zip(TAGS, queries, strict=True)},
        head=Head(
            name="tags",
            bank="fixed_set",
            relation="independent",
            activation="sigmoid",
            map=MapFacts(
                grid=[rows, columns],
                kind="attention",
                meaning="attention of the tag on the image's patches in the last layer, mean over heads; "
                "not a proof",
            ),
        ),
        relations=("independent",),
        ensemble="none",
        row_buckets=(),
        row_bias=None,
        identity={
            "queries": hashlib.sha256(queries.numpy().tobytes()).hexdigest(),
            "layout": "tag-queries-1",
        },
        reference=partial(score_tags, image, decoder, queries, TAGS),
        score_tolerance=2e-5,
        map_tolerance=2e-6,
        notes=(*notes, f"{len(TAGS)} tags, one unit; in training, absent, unsaid and uncertain were all 0"),
    )


def _tag_queries(encoder: nn.Module, text: BertFolder) -> Tensor:
    """Encode the tags, float32 (40, width), as the training script does once before it begins.

    Raises
    ------
    BuildError
        ``text-model.invalid`` for a vocabulary that lacks a tag's words.
    """
    tokenizer = Tokenizer.from_buffer(text.tokenizer_json(context=TAG_TOKENS))
    queries = []
    with torch.inference_mode():
        for tag in TAGS:
            encoded = tokenizer.encode(tag)
            if "[UNK]" in encoded.tokens:
                raise BuildError(
                    "text-model.invalid",
                    "the vocabulary lacks a word of a tag that this model scores",
                    artefact=text.name,
                    expected=tag,
                    found=" ".join(encoded.tokens),
                    cure="point the recipe's text_model to the folder published with the checkpoint",
                )
            queries.append(encoder(input_ids=torch.tensor([encoded.ids])).last_hidden_state[0, 0])
    return torch.stack(queries).clone()


def _stored_queries(path: Path, *, width: int) -> Tensor:
    """Read encoded tags.

    Raises
    ------
    BuildError
        ``text-model.invalid`` for anything but one finite row for each tag.
    """
    try:
        queries = safetensors.torch.load(path.read_bytes()).get("queries")
    except (OSError, safetensors.SafetensorError) as error:
        raise _invalid_queries(f"unreadable ({type(error).__name__})", width) from error
    if queries is None or queries.dtype != torch.float32 or queries.shape != (len(TAGS), width):
        found = "none" if queries is None else f"{queries.dtype} of shape {tuple(queries.shape)}"
        raise _invalid_queries(found, width)
    if not bool(torch.isfinite(queries).all()):
        raise _invalid_queries("a number that is not finite", width)
    return queries


def _invalid_queries(found: str, width: int) -> BuildError:
    return BuildError(
        "text-model.invalid",
        "the encoded tags cannot be used",
        artefact=TAG_QUERIES,
        expected=f"one tensor 'queries', float32 of shape ({len(TAGS)}, {width}), in the order of the tags",
        found=found,
        cure="encode the tags again, or use a checkpoint that holds their text model",
    )


def _typed(module: nn.Module, kind: type[Any]) -> Any:
    """Return a part as what it was made as: a ModuleDict does not know what it holds."""
    if not isinstance(module, kind):
        raise TypeError(f"{type(module).__name__} is no {kind.__name__}")
    return module


def _facts(name: str, *dims: int | str, dtype: Any = "float32") -> TensorFacts:
    return TensorFacts(name=name, dtype=dtype, dims=list(dims))


def _pixels(image: ImageEncoder) -> TensorFacts:
    return _facts("pixels", "batch", 3, image.size, image.size)


def _answers(image: ImageEncoder) -> list[TensorFacts]:
    return [_facts("logits", "batch", "prompts"), _facts("maps", "batch", "prompts", *image.grid)]


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
