"""CARZero: two-way cross-attention between an image's patches and a prompt's words.

The original recomputes a prompt's text features, its 98 memory rows and their keys and values for every
image. Here the three sides are cut where nothing of the other side is needed any more:

* image side: ViT, then the decoder's norm, and keys and values of all layers over the image's rows;
* text side: BERT, word rows, the same norm, keys and values over the prompt's rows, whose 97 - words zero
  rows are identical and collapse EXACTLY into one row with log(count) added to its attention logit;
* head: what is left. Both directions share every weight, so they run as one stack of 2N vectors.

Source: the published implementation (Apache-2.0), Lai et al., CVPR 2024, arXiv 2402.17417.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from promptray.export.checkpoint import load_checkpoint
from promptray.export.families.base import (
    INPUT_IDS,
    WORD_MATRIX,
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
from promptray.export.families.carzero_checkpoint import (
    check_configuration,
    published_state,
    weight_notes,
)
from promptray.export.families.grey_input import read_one_plane
from promptray.export.layout import check_tied, described, fit_state_dict
from promptray.export.models.carzero import CARZero, Fusion
from promptray.export.models.carzero_sizes import CARZeroSizes
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
from promptray.runtime.errors import BuildError
from promptray.runtime.text import EncodedFinding

HEAD = "findings"
_ROW_PADDING = -1.0e9
# Present in the published file and never used for a score (perturbing each leaves every score unchanged).
_UNUSED = (
    r"\.self_attn\.|decoder\.layers\.\d+\.norm1\.|\.pooler\.|logit_scale$|fusion_module\.decoder\.norm\."
)
_IGNORED = r"embeddings\.position_ids$"


class ImageSide(nn.Module):
    """pixels (B, 3, H, W) -> everything the head needs of an image."""

    def __init__(self, model: CARZero) -> None:
        super().__init__()
        self.encoder = model.img_encoder
        self.fusion = model.fusion_module

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return query, first query, keys and values of each layer, all (B, ...)."""
        return self.finish(*self.encode(pixels))

    def encode(self, pixels: Tensor) -> tuple[Tensor]:
        """Return the tower's tokens (B, 1 + P, width)."""
        return (self.encoder(pixels),)

    def finish(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Return what `forward` does, of the tokens."""
        memory = self.fusion.decoder_norm(tokens)
        return _cached_side(self.fusion, query=memory[:, 0], memory=memory)


class TextSide(nn.Module):
    """input_ids (1, T), word_matrix (1, W, T) -> the complete bank rows of one prompt."""

    def __init__(self, model: CARZero) -> None:
        super().__init__()
        self.bert = model.text_encoder.model
        self.fusion = model.fusion_module
        self.sizes = model.sizes

    def forward(self, input_ids: Tensor, word_matrix: Tensor) -> tuple[Tensor, ...]:
        """Return query, first query, keys and values of each layer, and the row bias of one prompt."""
        states = self.bert(input_ids=input_ids, output_hidden_states=True).hidden_states
        tokens = torch.stack(states[-self.sizes.last_n_layers :]).sum(dim=0)
        words = word_matrix @ tokens
        # The original divides by the padded length, not by the prompt's own.
        sentence = words.sum(dim=1, keepdim=True) / self.sizes.word_num
        memory = self.fusion.decoder_norm(torch.cat([sentence, words, torch.zeros_like(sentence)], dim=1))
        one_each = torch.ones_like(word_matrix[:, :, 0])
        zero_rows = self.sizes.word_num - one_each.sum(dim=1, keepdim=True)
        log_count = torch.where(
            zero_rows > 0, zero_rows.clamp(min=1).log(), torch.full_like(zero_rows, _ROW_PADDING)
        )
        row_bias = torch.cat([torch.zeros_like(log_count), torch.zeros_like(one_each), log_count], dim=1)
        cached = _cached_side(self.fusion, query=memory[:, 0], memory=memory)
        return (*(tensor[0] for tensor in cached), row_bias[0])


def _cached_side(fusion: Fusion, *, query: Tensor, memory: Tensor) -> tuple[Tensor, ...]:
    """Return query, first-layer query, then keys (transposed) and values of every layer."""
    layers = list(fusion.decoder.each_layer())
    first = layers[0]
    first_query = first.multihead_attn.query(first.norm2(query)[:, None])
    keys, values = [], []
    for layer in layers:
        key, value = layer.multihead_attn.keys_values(memory)
        keys.append(key.transpose(-2, -1))
        values.append(value)
    return (query, first_query.flatten(1), *keys, *values)


class HeadSide(nn.Module):
    """Image features and bank -> logits (B, N) and maps (B, N, side, side), both directions in one stack."""

    def __init__(self, model: CARZero) -> None:
        super().__init__()
        self.fusion = model.fusion_module
        self.sizes = model.sizes

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Score; the inputs are the image side's outputs, then the text side's with a prompts axis."""
        layers = self.sizes.fusion_layers
        image_query, image_first = inputs[:2]
        image_keys, image_values = inputs[2 : 2 + layers], inputs[2 + layers : 2 + 2 * layers]
        query, first = inputs[2 + 2 * layers : 4 + 2 * layers]
        keys, values = inputs[4 + 2 * layers : 4 + 3 * layers], inputs[4 + 3 * layers : 4 + 4 * layers]
        row_bias = inputs[-1][:, None, None, :]

        x = _stack_directions(query, image_query)
        attention = []
        for number, layer in enumerate(self.fusion.decoder.each_layer()):
            if number == 0:
                queries = _stack_directions(first, image_first)
                queries = queries.unflatten(-1, (self.sizes.fusion_heads, -1))
            else:
                queries = layer.multihead_attn.query(layer.norm2(x)).transpose(1, 2)
            prompts = queries.shape[1] // 2
            by_prompt, weights = _attend(
                queries[:, :prompts].transpose(1, 2), image_keys[number], image_values[number]
            )
            by_image, _ = _attend(
                queries[:, prompts:].permute(1, 2, 0, 3), keys[number], values[number], row_bias
            )
            both = torch.cat([by_prompt.transpose(1, 2), by_image.permute(2, 0, 1, 3)], dim=1).flatten(2)
            x = x + layer.multihead_attn.out_proj(both)
            x = x + layer.feed_forward(x)
            attention.append(weights.mean(dim=1))
        logits = self.fusion.mlp_head(self.fusion.decoder_norm(x)).squeeze(-1)
        prompts = logits.shape[1] // 2
        side = self.sizes.image_size // self.sizes.patch_size
        maps = torch.stack(attention).mean(dim=0)[..., 1:].unflatten(-1, (side, side))
        return (logits[:, :prompts] + logits[:, prompts:]) / 2, maps


def _stack_directions(of_prompts: Tensor, of_image: Tensor) -> Tensor:
    """(N, D) and (B, D) -> (B, 2N, D): the prompts' vectors, then the image's vector once for each prompt."""
    images, prompts = of_image.shape[0], of_prompts.shape[0]
    return torch.cat([of_prompts.expand(images, -1, -1), of_image[:, None].expand(-1, prompts, -1)], dim=1)


def _attend(query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    logits = (query / math.sqrt(query.shape[-1])) @ keys
    weights = (logits if bias is None else logits + bias).softmax(dim=-1)
    return weights @ values, weights


class CARZeroFamily:
    """Reads the published Lightning checkpoint of CARZero."""

    def load(self, checkpoint: Path, text_model: Path | None, options: Mapping[str, object]) -> LoadedModel:
        """Load the checkpoint and check it against the family's constants (see `Family.load`)."""
        content = load_checkpoint(checkpoint)
        unsaid = check_configuration(content, checkpoint.name)
        state = published_state(content, checkpoint.name)
        text = read_bert_folder(text_model)
        sizes = _sizes(state, text, options, checkpoint.name)
        model = CARZero(sizes, dropout=0.0).eval().requires_grad_(False)
        fit_state_dict(model, state, artefact=checkpoint.name, optional=_UNUSED, ignored=_IGNORED)
        check_tied(state, "fusion_module.decoder_norm", "fusion_module.decoder.norm", checkpoint.name)
        text.require_fit(width=sizes.width, vocabulary=sizes.vocab_size, layers=sizes.bert_depth)
        loaded = _describe(model, text, [*weight_notes(content), *unsaid])
        return read_one_plane(loaded, "encoder.model.patch_embed.proj")


FAMILY = CARZeroFamily()


def _sizes(
    state: Mapping[str, Tensor], text: BertFolder, options: Mapping[str, object], artefact: str
) -> CARZeroSizes:
    heads = options.get("image_heads")
    if heads is not None and not (type(heads) is int and heads > 0):  # True is an int, too
        raise BuildError(
            "recipe.invalid",
            "image_heads must be a positive integer",
            artefact="model_options",
            found=repr(heads),
        )
    with described("CARZero", artefact):
        sizes = CARZeroSizes.from_state_dict(state, bert_heads=text.heads, vit_heads=heads)
    if sizes.width % sizes.vit_heads or sizes.width % sizes.bert_heads or sizes.width % sizes.fusion_heads:
        raise BuildError(
            "checkpoint.layout",
            f"width {sizes.width} does not divide by its attention heads",
            artefact=artefact,
            found=f"image {sizes.vit_heads}, text {sizes.bert_heads}, fusion {sizes.fusion_heads} heads",
            cure="set model_options.image_heads in the recipe, and num_attention_heads in the text model",
        )
    return sizes


def _describe(model: CARZero, text: BertFolder, notes: Sequence[str]) -> LoadedModel:
    sizes = model.sizes
    rule = TextRule(
        head=HEAD,
        cleaning="carzero-sentences",
        tokenizer="tokenizer.json",
        context=sizes.word_num,
        templates=["There is {}"],
    )
    grid = [sizes.image_size // sizes.patch_size] * 2
    image_features, bank = _side_tensors(sizes)
    pixels = tensor("pixels", "batch", 3, *[sizes.image_size] * 2)
    state = model.state_dict()
    head = LoadedHead(
        name=HEAD,
        set="free",
        side=Side(HeadSide(model).eval(), [*image_features, *bank], answers(grid)),
        bank=bank,
        relations=("independent",),
        activation="none",
        map=MapFacts(
            grid=grid,
            kind="attention",
            meaning="attention of the prompt on the image's patches, mean over layers and heads; not a proof",
            tolerance=1e-6,
        ),
        # Finer buckets were no faster (benchmarks/bank_layout.py), and each is one more shape to compile.
        row_buckets=(16, 32, 64, sizes.word_num + 2),
        row_bias="row_bias",
        identity={
            "text_weights": weights_sha256({k: v for k, v in state.items() if k.startswith("text_encoder.")}),
            "head_weights": weights_sha256(
                {k: v for k, v in state.items() if k.startswith("fusion_module.")}
            ),
            "layout": "carzero-keys-values-1",
        },
        reference=partial(_reference, model),
        score_tolerance=2e-5,
    )
    text_side = Side(TextSide(model).eval(), [INPUT_IDS, WORD_MATRIX], entry_of(bank))
    return LoadedModel(
        family="carzero",
        preprocessing=_preprocessing(sizes),
        image=Side(ImageSide(model).eval(), [pixels], image_features),
        text=LoadedText(rule, text.tokenizer_json(context=rule.context), text_side),
        heads=[head],
        notes=(f"image side: {sizes.vit_heads} attention heads (no tensor tells)", *notes),
    )


def _side_tensors(sizes: CARZeroSizes) -> tuple[list[TensorFacts], list[TensorFacts]]:
    """Names and dimensions of the image features and of the bank, in the order the sides give them."""
    width, heads = sizes.width, sizes.fusion_heads
    patches = (sizes.image_size // sizes.patch_size) ** 2 + 1

    def features(prefix: str, first: str, rows: int | str) -> list[TensorFacts]:
        numbers = range(sizes.fusion_layers)
        return [
            tensor(f"{prefix}query", first, width),
            tensor(f"{prefix}first_query", first, width),
            *(tensor(f"{prefix}keys.{n}", first, heads, width // heads, rows) for n in numbers),
            *(tensor(f"{prefix}values.{n}", first, heads, rows, width // heads) for n in numbers),
        ]

    bank = [*features("", "prompts", "rows"), tensor("row_bias", "prompts", "rows")]
    return features("image_", "batch", patches), bank


def _preprocessing(sizes: CARZeroSizes) -> Preprocessing:
    return Preprocessing(
        greyscale=Greyscale(),
        steps=[
            ResizeLongerSide(size=256),
            PadSquare(size=256, value=0),
            CentreCrop(size=sizes.image_size),
        ],
        normalise=Normalise(mean=[0.4978] * 3, std=[0.2449] * 3),
        channels=3,
        height=sizes.image_size,
        width=sizes.image_size,
    )


def _reference(
    model: CARZero,
    pixels: Tensor,
    findings: Sequence[EncodedFinding],
    done: Callable[[int], None] = lambda _: None,
) -> Reference:
    """Score by the original's arithmetic: unpadded text, all 98 memory rows, nothing cached."""
    sentences, words = [], []
    with torch.inference_mode():
        for finding in findings:
            prompt = finding.prompts[0]
            ids = torch.from_numpy(prompt.arrays["input_ids"])
            matrix = torch.from_numpy(prompt.arrays["word_matrix"])
            sentence, rows = model.text_encoder(
                ids, torch.ones_like(ids), torch.zeros_like(ids), matrix.argmax(dim=1)
            )
            sentences.append(sentence)
            words.append(rows)
        outputs = []
        for number, image in enumerate(pixels, start=1):
            outputs.append(model.fuse(model.img_encoder(image[None]), torch.cat(sentences), torch.cat(words)))
            done(number)
    return Reference(
        logits=torch.cat([output.scores for output in outputs]).numpy(),
        maps=torch.cat([output.heatmap14 for output in outputs]).numpy(),
    )
