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

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from promptray.export.checkpoint import load_checkpoint, tensors
from promptray.export.clip_tokenizer import ClipVocabulary, read_clip_vocabulary
from promptray.export.families.base import LoadedModel
from promptray.export.families.dual_encoder import HEAD, Cosine, describe_dual_encoder
from promptray.export.families.grey_input import read_one_plane
from promptray.export.layout import NO_KEY, described, fit_state_dict
from promptray.export.models.clip import Clip
from promptray.runtime.bundle.image_rules import (
    Greyscale,
    Normalise,
    PadSquare,
    Preprocessing,
    ResizeLongerSide,
    Squash,
    Step,
)
from promptray.runtime.bundle.manifest import TextRule
from promptray.runtime.errors import BuildError

#: Pixels a side of the pictures that CheXzero's data were stored as; levels of them, of 0..255.
STORED, MEAN, STD = 320, 101.48761, 83.43944
# The temperature of the training; scalars that the file of OpenAI's own weights holds beside them.
_IGNORED = r"^(logit_scale|input_resolution|context_length|vocab_size)$"


class CheXzeroFamily:
    """Reads the state dict of OpenAI's CLIP with CLIP's vocabulary beside it."""

    def load(self, checkpoint: Path, text_model: Path | None, options: Mapping[str, object]) -> LoadedModel:
        """Load a checkpoint and the vocabulary (see `Family.load`)."""
        state = dict(tensors(load_checkpoint(checkpoint)))
        model = _model(state, checkpoint.name)
        fit_state_dict(model, state, artefact=checkpoint.name, optional=NO_KEY, ignored=_IGNORED)
        model.eval().requires_grad_(False)
        vocabulary = read_clip_vocabulary(checkpoint, text_model, model.token_embedding.num_embeddings)
        return read_one_plane(_describe(model, vocabulary), "visual.conv1")


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
    with described("a CLIP with a ViT", artefact):
        return Clip(state)


def _describe(model: Clip, vocabulary: ClipVocabulary) -> LoadedModel:
    rule = TextRule(
        head=HEAD, cleaning="clip", tokenizer="tokenizer.json", context=model.context, templates=["{}"]
    )
    weights = model.state_dict()
    return describe_dual_encoder(
        "chexzero",
        Cosine(model, model.context),
        rule,
        vocabulary.tokenizer_json(context=model.context),
        text_weights={key: value for key, value in weights.items() if not key.startswith("visual.")},
        relations=("pair", "independent"),
        preprocessing=preprocessing(model.visual.size),
        # Of random weights the original itself is 2e-7 off double precision, in a pair's two cosines.
        score_tolerance=5e-6,
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
