"""ASG's tags: the phrases, and their encodings, which are the decoder's queries."""

from __future__ import annotations

from pathlib import Path

import safetensors
import safetensors.torch
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from promptray.export.families.asg_files import TAG_QUERIES
from promptray.export.models.asg import TAG_TOKENS
from promptray.export.tokenizer import BertFolder
from promptray.runtime.errors import BuildError

#: The phrases whose encodings are the decoder's queries, in the published order.
TAG_NAMES = (
    "pleural effusion", "opacity", "pneumothorax", "edema", "atelectasis", "tube", "consolidation",
    "enlarged cardiomediastinum", "tip", "pneumonia", "line", "cardiomegaly", "fracture",
    "calcification", "device", "engorgement", "nodule", "wire", "pacemaker", "pleural thicken",
    "marking", "scar", "hyperinflate", "blunt", "collapse", "emphysema", "aerate", "mass",
    "infiltration", "obscure", "deformity", "hernia", "drainage", "distention", "shift", "stent",
    "lesion", "hardware", "dilation", "aspiration",
)  # fmt: skip

#: What two machines may make of one text model.
_SAME = 1e-4


def tag_queries(encoder: nn.Module, text: BertFolder) -> Tensor:
    """Encode the tags, float32 (40, width), as the training script does once before it begins.

    Raises
    ------
    BuildError
        ``text-model.invalid`` for a vocabulary that lacks a tag's words.
    """
    tokenizer = Tokenizer.from_buffer(text.tokenizer_json(context=TAG_TOKENS))
    queries = []
    with torch.inference_mode():
        for tag in TAG_NAMES:
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


def stored_queries(path: Path, *, width: int) -> Tensor:
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
    if queries is None or queries.dtype != torch.float32 or queries.shape != (len(TAG_NAMES), width):
        found = "none" if queries is None else f"{queries.dtype} of shape {tuple(queries.shape)}"
        raise _invalid_queries(found, width)
    if not bool(torch.isfinite(queries).all()):
        raise _invalid_queries("a number that is not finite", width)
    return queries


def require_same_queries(stored: Tensor | None, encoded: Tensor) -> None:
    """Refuse (``text-model.invalid``) stored tags that the checkpoint's own text model encodes otherwise."""
    if stored is None:
        return
    difference = float((stored - encoded).abs().max())
    if not difference <= _SAME:
        raise BuildError(
            "text-model.invalid",
            "the encoded tags are not what the checkpoint's own text model makes of them",
            artefact=TAG_QUERIES,
            expected=f"within {_SAME:g} of its encodings, or no such file",
            found=f"off by {difference:.3g}",
            cure="take the file out of the text model folder: the checkpoint does not need it",
        )


def _invalid_queries(found: str, width: int) -> BuildError:
    return BuildError(
        "text-model.invalid",
        "the encoded tags cannot be used",
        artefact=TAG_QUERIES,
        expected=f"one tensor 'queries', float32 of shape ({len(TAG_NAMES)}, {width}), in the tags' order",
        found=found,
        cure="encode the tags again, or use a checkpoint that holds their text model",
    )
