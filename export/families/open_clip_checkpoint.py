"""Weights in open_clip's layout: which tensors a file holds, and the image tower that they describe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from promptray.export.checkpoint import tensors
from promptray.export.families.open_clip_folder import OpenClipConfig
from promptray.export.families.options import invalid_option
from promptray.export.models.dual_encoder import ImageTower, VisualTower
from promptray.runtime.errors import BuildError

#: How to mend a tower that the tensors do not describe.
CURE = "check that the configuration beside the checkpoint is its own, and image_heads"
# What data-parallel training and Lightning put before every name.
_WRAPPERS = re.compile(r"^(?:module\.|model\.)+")


def published_state(content: Mapping[str, Any], artefact: str) -> dict[str, Tensor]:
    """Return the tensors, float32, of a published state dict or of a training's checkpoint.

    Raises
    ------
    BuildError
        ``checkpoint.layout`` where none belongs to an image tower of timm, or two have one name.
    """
    nested = content.get("state_dict")
    stored = dict(tensors(nested if isinstance(nested, Mapping) else content))
    found: dict[str, Tensor] = {}
    for key, tensor in stored.items():
        name = _WRAPPERS.sub("", key)
        if name in found:
            raise _layout("two tensors of this checkpoint have one name", artefact, "one of each", name)
        found[name] = tensor
    if not any(key.startswith("visual.trunk.") for key in found):
        raise _layout(
            "no tensor of this checkpoint belongs to an image tower of timm in open_clip's layout",
            artefact,
            "keys 'visual.trunk.*', 'visual.head.*', and 'text.*' or 'classifier.*'",
            ", ".join(list(stored or content)[:5]),
        )
    return found


def image_heads(options: Mapping[str, object], default: int | None) -> int:
    """Return the attention heads that an image tower unknown to timm has.

    Parameters
    ----------
    options : mapping
        The recipe's.
    default : int or None
        Used where the recipe does not say; with None, it must.
    """
    heads = options.get("image_heads", default)
    if heads is None:
        raise invalid_option(
            "image_heads", "timm knows no image tower of this name, so it must be said", "its heads", "none"
        )
    if not (type(heads) is int and heads > 0):  # True is an int, too
        raise invalid_option("image_heads", "this value cannot be used", "a positive integer", repr(heads))
    return heads


def image_tower(config: OpenClipConfig, heads: int) -> ImageTower:
    """Return what the configuration tells of the image tower."""
    vision = config.model_cfg.vision_cfg
    return ImageTower(
        timm_name=vision.timm_model_name,
        image_size=vision.image_size,
        pool=vision.timm_pool,
        projection=vision.timm_proj,
        projection_bias=vision.timm_proj_bias,
        heads=heads,
    )


def require_size(visual: VisualTower, state: Mapping[str, Tensor], stated: int, artefact: str) -> None:
    """Refuse (``checkpoint.config``) a position table of another length than the image size gives."""
    table = state.get("visual.trunk.pos_embed")
    if table is not None and table.ndim == 3 and table.shape[1] != visual.positions:
        raise BuildError(
            "checkpoint.config",
            "the position table has another length than the configuration's image size gives",
            artefact=artefact,
            expected=f"{visual.positions} positions for {stated} x {stated} pixels",
            found=f"a table of shape {tuple(table.shape)}",
            cure="put the configuration published with the checkpoint beside it",
        )


def image_note(visual: VisualTower, facts: ImageTower, options: Mapping[str, object]) -> str:
    """Say what was taken for granted of the image tower; refuse heads that timm knows better."""
    used = visual.heads
    if "image_heads" in options and used != facts.heads:
        expected = f"{used}, as {facts.timm_name} has"
        raise invalid_option("image_heads", "this value cannot be used", expected, str(facts.heads))
    if facts.known_to_timm:
        return f"image side: {facts.timm_name} with {used} attention heads (as timm has it)"
    return (
        f"image side: {facts.timm_name} with {used} attention heads, exact (erf) GELU and "
        f"{facts.pool or 'token'} pooling: a plain ViT, since timm knows no such name"
    )


def _layout(message: str, artefact: str, expected: str, found: str) -> BuildError:
    return BuildError(
        "checkpoint.layout",
        message,
        artefact=artefact,
        expected=expected,
        found=found,
        cure="check that the recipe names the right family and file",
    )
