"""The example of docs/families.md: a whole family, small enough to read, and a checkpoint for it.

The page shows the part between the two marks; tests/export/families/test_example_family.py holds it so,
builds a bundle of it and scores.
"""

# begin: export/families/example.py
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from promptray.export.checkpoint import load_checkpoint, tensors
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
from promptray.export.tokenizer import read_bert_folder
from promptray.runtime.bundle.image_rules import Greyscale, Normalise, Preprocessing, Squash
from promptray.runtime.bundle.manifest import MapFacts, TextRule
from promptray.runtime.errors import BuildError
from promptray.runtime.text import EncodedFinding, EncodedPrompt

GRID, PATCH, CONTEXT = 4, 8, 16


class Example(nn.Module):
    """The published module: its parameters have the names of the file."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        words, width = state["words.weight"].shape
        self.patches = nn.Conv2d(3, width, PATCH, stride=PATCH)
        self.norm = nn.LayerNorm(width)
        self.words = nn.Embedding(words, width)

    def image(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images: the whole (B, D) and its patches (B, P, D), at unit length."""
        patches = self.norm(self.patches(pixels).flatten(2).transpose(1, 2))
        unit = nn.functional.normalize
        return unit(patches.mean(dim=1), dim=-1), unit(patches, dim=-1)

    def text(self, input_ids: Tensor) -> Tensor:
        """Encode texts (N, T): unit vectors (N, D)."""
        return nn.functional.normalize(self.words(input_ids).mean(dim=1), dim=-1)


class ImageSide(nn.Module):
    """pixels (B, 3, H, W) -> image_vector (B, D), patch_vectors (B, P, D)."""

    def __init__(self, model: Example) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Encode images."""
        return self.model.image(pixels)


class TextSide(nn.Module):
    """input_ids (1, T) -> finding_vector (D,): one wording."""

    def __init__(self, model: Example) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor) -> tuple[Tensor]:
        """Encode one wording."""
        return (self.model.text(input_ids)[0],)


class ExampleFamily:
    """Reads a state dict with the text model's folder."""

    def load(self, checkpoint: Path, text_model: Path | None, options: Mapping[str, object]) -> LoadedModel:
        """Load a checkpoint (see `Family.load`)."""
        folder = read_bert_folder(text_model)
        state = {key: value.float() for key, value in tensors(load_checkpoint(checkpoint))}
        if "words.weight" not in state or state["words.weight"].ndim != 2:
            raise BuildError(
                "checkpoint.layout",
                "no tensor of this checkpoint belongs to the example",
                artefact=checkpoint.name,
                expected="keys 'patches.*', 'norm.*' and 'words.weight'",
                found=", ".join(list(state)[:5]) or "no tensor at the top level",
                cure="check that the recipe names the right family and file",
            )
        model = Example(state)
        fit_state_dict(model, state, artefact=checkpoint.name, optional=NO_KEY, ignored=r"^temperature$")
        model.eval().requires_grad_(False)
        words, width = state["words.weight"].shape
        folder.require_fit(width=width, vocabulary=words, layers=None)
        side, grid = GRID * PATCH, [GRID, GRID]
        image = [
            tensor("image_vector", "batch", width),
            tensor("patch_vectors", "batch", GRID * GRID, width),
        ]
        bank = [tensor("finding_vector", "prompts", width)]
        rule = TextRule(
            head="prompts",
            cleaning="white-space",
            tokenizer="tokenizer.json",
            context=CONTEXT,
            templates=["There is {}."],
        )
        head = LoadedHead(
            name="prompts",
            set="free",
            side=Side(ClassMatrix((GRID, GRID)).eval(), [*image, *bank], answers(grid)),
            bank=bank,
            relations=("independent", "exclusive", "pair"),
            activation="none",
            map=MapFacts(grid=grid, kind="similarity", meaning="cosine of patch and finding", tolerance=5e-6),
            ensemble="mean-unit",
            identity={"text_weights": weights_sha256(model.words.state_dict()), "layout": "unit-vector-1"},
            reference=partial(reference, model),
            score_tolerance=2e-6,
        )
        return LoadedModel(
            family="example",
            preprocessing=Preprocessing(
                greyscale=Greyscale(),
                steps=[Squash(size=side, interpolation="bicubic")],
                normalise=Normalise(mean=[0.5] * 3, std=[0.5] * 3),
                channels=3,
                height=side,
                width=side,
            ),
            image=Side(ImageSide(model).eval(), [tensor("pixels", "batch", 3, side, side)], image),
            text=LoadedText(
                rule,
                folder.tokenizer_json(context=CONTEXT),
                Side(TextSide(model).eval(), [INPUT_IDS], entry_of(bank)),
            ),
            heads=[head],
            notes=("the temperature of the training is not used, as in the published test script",),
        )


FAMILY = ExampleFamily()


def reference(
    model: Example,
    pixels: Tensor,
    findings: Sequence[EncodedFinding],
    done: Callable[[int], None] = lambda _: None,
) -> Reference:
    """Score as the published test script does: one image at a time."""
    logits, maps = [], []
    with torch.inference_mode():
        vectors = torch.stack([finding_vector(model, finding) for finding in findings])
        for number, image in enumerate(pixels, start=1):
            whole, patches = model.image(image[None])
            logits.append(whole @ vectors.T)
            maps.append((patches @ vectors.T).transpose(1, 2).unflatten(-1, (GRID, GRID)))
            done(number)
    return Reference(logits=torch.cat(logits).numpy(), maps=torch.cat(maps).numpy())


def finding_vector(model: Example, finding: EncodedFinding) -> Tensor:
    """Return the mean of the wordings' unit vectors at unit length; of a pair, less the negative's."""

    def mean(prompts: Sequence[EncodedPrompt]) -> Tensor:
        vectors = [model.text(torch.from_numpy(prompt.arrays["input_ids"]))[0] for prompt in prompts]
        return nn.functional.normalize(torch.stack(vectors).mean(dim=0), dim=0)

    own = mean(finding.prompts)
    return own - mean(finding.negative_prompts) if finding.negative_prompts else own


# end
