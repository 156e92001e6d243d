"""CheXzero: a CLIP of radiographs and report impressions; each finding is asked against its negative.

* image side: ViT, projection, unit length; the patches go the same way, for the map;
* text side: CLIP's transformer, the end token's projection, unit length; averaged over the wordings;
* head: the cosine, without the temperature that the training had. Of a pair it is the difference of two,
  whose logistic function is the published probability e^pos / (e^pos + e^neg).

Read in the published source: the state dict that the training script saves and the test script loads
strictly, both towers, the tokenizer, how images were prepared, the wordings ``{}`` and ``no {}``, the
probability. Not verified: the published weights were not at hand; neither their keys nor their scores were
seen. The source averages the probabilities of several checkpoints; a bundle holds one.

Source: Tiu et al., Nature Biomedical Engineering 2022; rajpurkarlab/CheXzero and openai/CLIP (both MIT), of
which no line is here.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from promptray.export.checkpoint import load_checkpoint, tensors
from promptray.export.clip_tokenizer import ClipVocabulary, read_clip_vocabulary
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
from promptray.export.layout import NO_KEY, fit_state_dict
from promptray.export.models.class_matrix import ClassMatrix
from promptray.export.models.clip import Clip
from promptray.runtime.bundle.manifest import (
    Greyscale,
    MapFacts,
    Normalise,
    PadSquare,
    Preprocessing,
    ResizeLongerSide,
    Squash,
    Step,
    TextRule,
)
from promptray.runtime.errors import BuildError
from promptray.runtime.text import EncodedFinding, EncodedPrompt

#: Pixels a side of the pictures that CheXzero's data were stored as; levels of them, of 0..255.
STORED, MEAN, STD = 320, 101.48761, 83.43944
HEAD = "findings"
# The temperature of the training; scalars that the file of OpenAI's own weights holds beside them.
_IGNORED = r"^(logit_scale|input_resolution|context_length|vocab_size)$"


class ImageSide(nn.Module):
    """pixels (B, 3, H, W) -> image_vector (B, D), patch_vectors (B, P, D), all of unit length."""

    def __init__(self, model: Clip) -> None:
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

    def __init__(self, model: Clip) -> None:
        super().__init__()
        self.clip = model

    def forward(self, input_ids: Tensor) -> tuple[Tensor]:
        """Return it."""
        return (self.clip.encode_text(input_ids)[0],)


class CheXzeroFamily:
    """Reads the state dict of OpenAI's CLIP with CLIP's vocabulary beside it."""

    def load(self, checkpoint: Path, text_model: Path | None, options: Mapping[str, object]) -> LoadedModel:
        """Load a checkpoint and the vocabulary (see `Family.load`)."""
        state = dict(tensors(load_checkpoint(checkpoint)))
        model = _model(state, checkpoint.name)
        fit_state_dict(model, state, artefact=checkpoint.name, optional=NO_KEY, ignored=_IGNORED)
        model.eval().requires_grad_(False)
        vocabulary = read_clip_vocabulary(checkpoint, text_model, model.token_embedding.num_embeddings)
        return _describe(model, vocabulary)


FAMILY = CheXzeroFamily()


def _model(state: Mapping[str, Tensor], artefact: str) -> Clip:
    """Make the module that the tensors describe, without the weights."""
    if "visual.class_embedding" not in state:
        raise BuildError(
            "checkpoint.layout",
            "no tensor of this checkpoint belongs to a CLIP with a ViT in OpenAI's layout",
            artefact=artefact,
            expected="keys 'visual.class_embedding', 'visual.transformer.resblocks.*', "
            "'transformer.resblocks.*', 'token_embedding.weight', 'text_projection' ...",
            found=", ".join(list(state)[:5]) or "no tensor at the top level",
            cure="check that the recipe names the right family and file",
        )
    try:
        return Clip(state)
    except (LookupError, ValueError, TypeError, RuntimeError) as error:
        near = (
            difflib.get_close_matches(str(error.args[0]), state, n=1) if isinstance(error, KeyError) else []
        )
        found = f"; nearest there: {near[0]}" if near else ""
        raise BuildError(
            "checkpoint.layout",
            f"the tensors do not describe a CLIP with a ViT ({str(error)[:200]}{found})",
            artefact=artefact,
            cure="check that the recipe names the right family and file, and get the file again",
        ) from error


def _describe(model: Clip, vocabulary: ClipVocabulary) -> LoadedModel:
    size, grid = model.visual.size, model.visual.grid
    width = model.visual.proj.shape[1]
    image = [
        tensor("image_vector", "batch", width),
        tensor("patch_vectors", "batch", grid[0] * grid[1], width),
    ]
    bank = [tensor("finding_vector", "prompts", width)]
    text_weights = {key: value for key, value in model.state_dict().items() if not key.startswith("visual.")}
    head = LoadedHead(
        name=HEAD,
        set="free",
        side=Side(ClassMatrix(grid).eval(), [*image, *bank], answers(grid)),
        bank=bank,
        relations=("pair", "independent"),
        activation="none",
        map=MapFacts(
            grid=list(grid),
            kind="similarity",
            meaning="cosine of each patch, taken through the final norm and the projection, with the "
            "finding's vector; patches were not trained to it, so it shows likeness and proves nothing",
            tolerance=1e-5,
        ),
        ensemble="mean-unit",
        identity={"text_weights": weights_sha256(text_weights), "layout": "unit-vector-1"},
        reference=partial(_reference, model),
        # Of random weights the original itself is 2e-7 off double precision, in a pair's two cosines.
        score_tolerance=5e-6,
    )
    rule = TextRule(
        head=HEAD, cleaning="clip", tokenizer="tokenizer.json", context=model.context, templates=["{}"]
    )
    text_side = Side(TextSide(model).eval(), [INPUT_IDS], entry_of(bank))
    return LoadedModel(
        family="chexzero",
        preprocessing=preprocessing(size),
        image=Side(ImageSide(model).eval(), [tensor("pixels", "batch", 3, size, size)], image),
        text=LoadedText(rule, vocabulary.tokenizer_json(context=model.context), text_side),
        heads=[head],
        notes=(
            "the weights of the publication were not at hand when this family was written",
            "attention heads are 64 wide, as in every published CLIP: no tensor tells",
            "cosines without the temperature of the training, as the published test script has them",
            "pixels: 8-bit Lanczos to 320, then the bicubic filter of torchvision 0.11.3, as the published "
            "requirements name it: it does not antialias floats, later versions do",
            "a coloured picture becomes grey before the first resize, in the original after it",
        ),
    )


def preprocessing(side: int) -> Preprocessing:
    """Return how CheXzero's images were prepared, for a network of `side` x `side` pixels.

    Source: ``preprocess`` of the published ``data_process.py`` (stored as squares of 320) and ``make`` of
    ``zero_shot.py``, which normalises before it resizes: the same but for rounding, since both are linear. A
    network of 320 pixels, the one that the source trains from random weights, gets the stored square.
    """
    steps: list[Step] = [
        ResizeLongerSide(size=STORED, interpolation="lanczos", rounding="truncate-both"),
        PadSquare(size=STORED),
    ]
    if side != STORED:
        steps.append(Squash(size=side, interpolation="cubic"))
    return Preprocessing(
        greyscale=Greyscale(),
        steps=steps,
        normalise=Normalise(mean=[MEAN / 255] * 3, std=[STD / 255] * 3),
        channels=3,
        height=side,
        width=side,
        levels="uint8" if side == STORED else "float32",
    )


def _reference(
    model: Clip,
    pixels: Tensor,
    findings: Sequence[EncodedFinding],
    done: Callable[[int], None] = lambda _: None,
) -> Reference:
    """Score as the published test script does: texts padded to the context, one image at a time."""
    logits, maps = [], []
    with torch.inference_mode():
        own = torch.stack([_class_vector(model, finding.prompts) for finding in findings])
        negatives = [
            _class_vector(model, each.negative_prompts) for each in findings if each.negative_prompts
        ]
        vectors = own - torch.stack(negatives) if negatives else own
        for number, image in enumerate(pixels, start=1):
            vector, patches = model.visual(image[None])
            logits.append(vector @ own.T - vector @ torch.stack(negatives).T if negatives else vector @ own.T)
            maps.append((patches @ vectors.T).transpose(1, 2).unflatten(-1, model.visual.grid))
            done(number)
    return Reference(logits=torch.cat(logits).numpy(), maps=torch.cat(maps).numpy())


def _class_vector(model: Clip, prompts: Sequence[EncodedPrompt]) -> Tensor:
    """Return the mean of the unit vectors, at unit length: the published classifier of one label."""
    ids = torch.zeros(len(prompts), model.context, dtype=torch.int64)
    for row, prompt in zip(ids, prompts, strict=True):
        tokens = torch.from_numpy(prompt.arrays["input_ids"][0])
        row[: len(tokens)] = tokens
    return nn.functional.normalize(model.encode_text(ids).mean(dim=0), dim=-1)
