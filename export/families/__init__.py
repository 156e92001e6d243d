"""The registry of families: facts of each, and its module, imported only when used: it needs torch."""

from __future__ import annotations

import importlib

from promptray.export.families.base import Family, FamilyFacts
from promptray.runtime.errors import BuildError

FAMILIES: tuple[FamilyFacts, ...] = (
    FamilyFacts(
        name="carzero",
        summary="CARZero: ViT and BERT with two-way cross-attention; raw logits, attention maps",
        layout="Lightning .ckpt with state_dict keys 'CARZero.{img_encoder,text_encoder,fusion_module}.*', "
        "and a text model folder with config.json and vocab.txt",
        options={
            "image_heads": "attention heads of the image side (no tensor tells; default: the text model's, "
            "which is right for the published file: 12)"
        },
        module="promptray.export.families.carzero",
    ),
)


def facts(name: str) -> FamilyFacts:
    """Return what is known of a family without importing it.

    Raises
    ------
    BuildError
        ``family.unknown``.
    """
    for known in FAMILIES:
        if known.name == name:
            return known
    raise BuildError(
        "family.unknown",
        "no family of this name",
        artefact=name,
        expected=", ".join(known.name for known in FAMILIES),
        cure="run `promptray families`",
    )


def family(name: str) -> Family:
    """Import a family and return it.

    Raises
    ------
    BuildError
        ``family.unknown``.
    """
    found: Family = importlib.import_module(facts(name).module).FAMILY
    return found
