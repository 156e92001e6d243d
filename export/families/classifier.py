"""What every classifier with one linear layer is: an image vector, a row and a bias for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from promptray.export.families.base import (
    LoadedHead,
    LoadedModel,
    Scoring,
    Side,
    answers,
    tensor,
    weights_sha256,
)
from promptray.export.families.options import invalid_option
from promptray.export.models.class_matrix import ClassMatrix, ClassScores
from promptray.export.safetensors_checkpoint import stated_list
from promptray.runtime.bundle.image_rules import Preprocessing
from promptray.runtime.bundle.manifest import MapFacts, Relation
from promptray.runtime.bundle.validate import LARGEST_TOLERANCE

#: The text of a safetensors file that names its classes, a JSON list in the order of the weights.
CLASSES = "classes"


def class_names(
    content: Mapping[str, Any],
    options: Mapping[str, object],
    count: int,
    artefact: str,
    *,
    default: object = None,
) -> list[str]:
    """Return the classes in the order of the weights: no tensor tells it, and runs of one study differ.

    Parameters
    ----------
    content : mapping
        Of the checkpoint. A safetensors file names its classes in a text, ``classes``, which is binding.
    options : mapping
        The recipe's; ``classes`` names them where the file does not.
    count : int
        Rows of the classifier.
    artefact : str
        Name of the file, for errors.
    default : object
        What the checkpoint says of them less bindingly.

    Raises
    ------
    BuildError
        ``recipe.invalid`` where they are not known, or the recipe contradicts the file;
        ``checkpoint.config`` for a text that is no list.
    """
    own = stated_list(content, CLASSES, artefact)
    asked = options.get("classes", default)
    if own is not None and "classes" in options and asked != own:
        raise invalid_option(
            "classes",
            f"{artefact} names its classes otherwise; a finding's `class_name` says which one it is",
            ", ".join(map(str, own)),
            repr(asked),
        )
    stated = asked if own is None else own
    names = stated if isinstance(stated, list) else []
    whole = all(isinstance(name, str) and name for name in names) and len(set(map(str, names))) == len(names)
    if not whole or not names or len(names) != count:
        raise invalid_option(
            "classes",
            "the order of the classes must be known: the classifier has one row for each",
            f"a list of {count} different names",
            "none" if stated is None else repr(stated),
        )
    return list(names)


def describe_classifier(
    family: str,
    image: Side,
    weight: Tensor,
    bias: Tensor,
    names: Sequence[str],
    *,
    preprocessing: Preprocessing,
    map_facts: MapFacts | None,
    relations: Sequence[Relation],
    reference: Scoring,
    score_tolerance: float,
    notes: Sequence[str],
    sources: Sequence[str] | None = None,
    head_weights: Mapping[str, Tensor] | None = None,
) -> LoadedModel:
    """Describe an image side and its linear layer: logits = image_vector @ weight.T + bias.

    Parameters
    ----------
    family : str
    image : Side
        Gives ``image_vector`` (B, D) and, where there is a map, ``patch_vectors`` (B, P, D).
    weight, bias : Tensor, (K, D) and (K,)
    names : sequence of str
        The K classes, in the order of `weight`.
    map_facts : MapFacts or None
        None where a logit does not split over patches.
    head_weights : mapping of str to Tensor, optional
        What the bank hangs on, where it is not `weight` and `bias`.
    """
    grid = map_facts.grid if map_facts is not None else []
    bank = [tensor("class_vector", "prompts", weight.shape[1]), tensor("class_bias", "prompts")]
    module = ClassMatrix((grid[0], grid[1])) if grid else ClassScores()
    rows_of, biases = weight.detach().numpy(), bias.detach().numpy()
    head = LoadedHead(
        name="classes",
        set="fixed",
        side=Side(module.eval(), [*image.outputs, *bank], answers(grid)),
        bank=bank,
        classes={
            name: {"class_vector": rows_of[n].copy(), "class_bias": np.array(biases[n])}
            for n, name in enumerate(names)
        },
        relations=relations,
        # Alternatives always become a softmax; a class on its own was trained to be present or not.
        activation="sigmoid",
        map=map_facts,
        identity={
            "head_weights": weights_sha256(head_weights or {"weight": weight, "bias": bias}),
            "layout": "class-matrix-1",
        },
        reference=reference,
        score_tolerance=score_tolerance,
    )
    return LoadedModel(
        family=family,
        preprocessing=preprocessing,
        image=image,
        text=None,
        heads=[head],
        notes=(*notes, f"classes in the order of the weights: {', '.join(names)}"),
        sources=sources,
    )


def tolerance_of_logits(error: float, weight: Tensor, bias: Tensor) -> float:
    """Return what float32 may put a logit off by.

    A probe's rows may be long, since the spread of its features is folded into them, and they may be short:
    the bound goes with them, so that it stays small beside what the logits tell apart.

    Parameters
    ----------
    error : float
        What it may put a logit of a row of unit length off by.
    weight, bias : Tensor, (K, D) and (K,)
        The largest counts; of a bias, float32 keeps six digits.
    """
    longest = float(torch.linalg.vector_norm(weight.double(), dim=1).max())
    return min(error * longest + 1e-6 * max(1.0, float(bias.abs().max())), LARGEST_TOLERANCE)
