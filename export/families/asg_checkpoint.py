"""What ASG's checkpoint must hold for each of its heads, by the keys of the published training script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from promptray.export.checkpoint import plain, tensors
from promptray.export.families.asg_files import TAG_QUERIES
from promptray.export.families.base import left_out_note
from promptray.export.layout import check_tied, described, fit_state_dict
from promptray.export.models.asg import ReportEncoder, image_encoder, tag_encoder
from promptray.export.models.query_decoder import query_decoder
from promptray.export.tokenizer import BertFolder
from promptray.runtime.errors import BuildError

#: Names of the heads.
PROMPTS, TAGS = "prompts", "tags"
IMAGE, REPORT, DECODER, TAG_TEXT = "img_encoder_q", "text_encoder_q", "irl", "text_encoder"
#: The modules that each head is made of.
PARTS: dict[str, tuple[str, ...]] = {
    PROMPTS: (IMAGE, REPORT),
    TAGS: (IMAGE, DECODER, TAG_TEXT),
}
_MARK = f"{IMAGE}.global_embed.head.0.weight"
_TEMPERATURE = 0.07
# Buffers that older transformers stored and that count up from 0; counters of batch norms.
_IGNORED = r"embeddings\.position_ids$|num_batches_tracked$"
_COUNTERS = r"num_batches_tracked$"


def published_state(content: Mapping[str, Any], artefact: str) -> dict[str, Tensor]:
    """Return the tensors, float32, without what wrappers put before all their names.

    Raises
    ------
    BuildError
        ``checkpoint.layout`` where none belongs to ASG.
    """
    nested = content.get("state_dict")
    found = dict(tensors(nested if isinstance(nested, Mapping) else content))
    marks = [key for key in found if key.endswith(_MARK)]
    if len(marks) != 1:
        raise BuildError(
            "checkpoint.layout",
            "the checkpoint does not hold one image side of ASG" if marks else "no tensor belongs to ASG",
            artefact=artefact,
            expected=f"one key that ends in {_MARK!r}",
            found=", ".join(marks or list(found or content)[:5]),
            cure="check that the recipe names the right family and file",
        )
    prefix = marks[0].removesuffix(_MARK)
    return {key.removeprefix(prefix): value for key, value in found.items()}


def temperature(content: Mapping[str, Any], artefact: str) -> tuple[float, str]:
    """Return what cosines are divided by, and how that is known.

    Raises
    ------
    BuildError
        ``checkpoint.config`` where the checkpoint states no positive number.
    """
    stated = plain(content.get("hyper_parameters"))
    found = stated.get("softmax_temperature") if isinstance(stated, Mapping) else None
    if found is None:
        return _TEMPERATURE, f"temperature {_TEMPERATURE}: not verified, the checkpoint does not say"
    if type(found) not in (int, float) or not (math.isfinite(found) and found > 0):
        raise BuildError(
            "checkpoint.config",
            "the checkpoint's softmax_temperature cannot be used",
            artefact=artefact,
            expected=f"a positive number, published {_TEMPERATURE}",
            found=repr(found)[:80],
            cure="get the file again from its publisher and compare its sha256",
        )
    return float(found), f"temperature {found:g}, as the checkpoint says"


@dataclass(frozen=True)
class _NoTags:
    """Why there is no tag head: `own` where the checkpoint has none, not where only a file is missing."""

    why: str
    expected: str
    own: bool

    def refusal(self, artefact: str) -> BuildError:
        return _no_tags(self.why, artefact, expected=self.expected)


def settle_heads(
    state: Mapping[str, Tensor], asked: Sequence[str] | None, *, queries_given: bool, artefact: str
) -> tuple[list[str], list[str]]:
    """Return the heads to load, and notes on one that is left out.

    Parameters
    ----------
    state : mapping of str to Tensor
        As `published_state` returns it.
    asked : sequence of str or None
        What the recipe asks for; None for all that the checkpoint holds.
    queries_given : bool
        Whether the tags come encoded, so that their text model may be missing.

    Raises
    ------
    BuildError
        ``checkpoint.layout`` for tags that are asked for and not there, or there and not as published; for a
        decoder whose tags cannot be encoded, too, unless the recipe says that it goes without them.
    """
    heads = [PROMPTS, TAGS] if asked is None else list(asked)
    if TAGS not in heads:
        return heads, []
    missing = _missing_tags(state, queries_given=queries_given)
    if missing is None:
        _require_published_tags(state, artefact)
        return heads, []
    if asked is not None or not missing.own:
        raise missing.refusal(artefact)
    return [PROMPTS], [left_out_note(TAGS, missing.why)]


def load_parts(
    state: Mapping[str, Tensor],
    heads: Sequence[str],
    text: BertFolder,
    *,
    image_heads: int,
    artefact: str,
) -> nn.ModuleDict:
    """Make the modules of the heads, with the weights in them.

    Parameters
    ----------
    state : mapping of str to Tensor
        As `published_state` returns it. Tensors of other parts are not looked at.
    heads : sequence of str
        As `settle_heads` returns them.
    text : BertFolder
        Tells the attention heads of both text models.
    image_heads : int
        Attention heads of a ViT.

    Raises
    ------
    BuildError
        ``checkpoint.layout`` or ``text-model.invalid``.
    """
    used = {key: value for key, value in state.items() if key.partition(".")[0] in _parts_of(heads)}
    with described(
        "ASG",
        artefact,
        cure="check family and file; set model_options.image_heads, and num_attention_heads in the text "
        "model, to what the model was trained with",
    ):
        parts = _parts(used, heads, text.heads, image_heads)
    fit_state_dict(parts, used, artefact=artefact, optional=_COUNTERS, ignored=_IGNORED)
    if TAGS in heads:
        check_tied(state, f"{DECODER}.decoder_norm", f"{DECODER}.decoder.norm", artefact)
    _require_text_model(state, text)
    return parts.eval().requires_grad_(False)


def _parts_of(heads: Sequence[str]) -> set[str]:
    return {part for head in heads for part in PARTS[head]}


def _parts(
    state: Mapping[str, Tensor], heads: Sequence[str], bert_heads: int, image_heads: int
) -> nn.ModuleDict:
    parts = nn.ModuleDict({IMAGE: image_encoder(state, f"{IMAGE}.", heads=image_heads)})
    if PROMPTS in heads:
        parts[REPORT] = ReportEncoder(state, f"{REPORT}.", bert_heads)
    if TAGS in heads:
        parts[DECODER] = query_decoder(state, f"{DECODER}.", input_norm=False)
        if _has(state, TAG_TEXT):
            parts[TAG_TEXT] = tag_encoder(state, f"{TAG_TEXT}.", bert_heads)
    return parts


def _has(state: Mapping[str, Tensor], part: str) -> bool:
    return any(key.startswith(f"{part}.") for key in state)


def _missing_tags(state: Mapping[str, Tensor], *, queries_given: bool) -> _NoTags | None:
    """Return why the checkpoint has no tag head, or None."""
    if f"{IMAGE}.model.conv1.weight" in state:
        return _NoTags(
            "the tag head of a ResNet-50 cannot be built: the published decoder reads 768-wide patches on a "
            "14 x 14 grid, the ResNet gives 1024 on 19 x 19, and the adapter between them was not published",
            expected="a ViT-B/16 checkpoint",
            own=True,
        )
    if not _has(state, DECODER):
        return _NoTags("the checkpoint holds no decoder of tags", expected=f"keys {DECODER}.*", own=True)
    if not (_has(state, TAG_TEXT) or queries_given):
        return _NoTags(
            "the frozen text model that encodes the tags is not in the checkpoint",
            expected=f"keys {TAG_TEXT}.*, as the training script saves them, or the encoded tags as "
            f"{TAG_QUERIES} in the text model folder",
            own=False,
        )
    return None


def _require_published_tags(state: Mapping[str, Tensor], artefact: str) -> None:
    """Refuse a decoder that is not the published one."""
    table = state.get(f"{DECODER}.mlp_head.0.weight")
    if table is not None and table.shape[:1] != (1,):
        raise _no_tags(
            "the tag head does not give one logit for each query, so which tags it scores is unknown",
            artefact,
            expected=f"{DECODER}.mlp_head.0.weight of shape (1, width)",
            found=str(tuple(table.shape)),
        )


def _no_tags(message: str, artefact: str, *, expected: str, found: str | None = None) -> BuildError:
    return BuildError(
        "checkpoint.layout",
        message,
        artefact=artefact,
        expected=expected,
        found=found,
        cure=f"use the checkpoint as it was saved, or set model_options.heads to [{PROMPTS}]",
    )


def _require_text_model(state: Mapping[str, Tensor], text: BertFolder) -> None:
    """The folder is that of the frozen tag encoder, of which the report encoder was the first half."""
    tables = [f"{part}embeddings.word_embeddings.weight" for part in (f"{TAG_TEXT}.", f"{REPORT}.model.")]
    words = next((state[key] for key in tables if key in state), None)
    if words is None:  # the tags came encoded
        return
    stem = f"{TAG_TEXT}.encoder.layer."
    layers = {key.removeprefix(stem).partition(".")[0] for key in state if key.startswith(stem)}
    text.require_fit(width=words.shape[1], vocabulary=words.shape[0], layers=len(layers) or None)


def left_out(state: Mapping[str, Tensor], heads: Sequence[str]) -> list[str]:
    """Return a note of the modules that no head uses."""
    parts = sorted({key.partition(".")[0] for key in state} - _parts_of(heads))
    return [f"left out, no head of the bundle uses them: {', '.join(parts)}"] if parts else []
