"""What the recipes of all tiny models have in common."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_COMMON: dict[str, Any] = {
    "model": {"licence": "none", "intended_use": "tests", "training_data": "none: random weights"},
    "door": {"modalities": ["CR", "DX"]},
    "golden": {"images": "golden", "licence": "CC0"},
}


def plain_recipe(own: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return a recipe as plain values: a model's `own` keys, and a test's `changes`; None removes a key."""
    content = {"recipe_version": 1, **_COMMON, **own, **changes}
    return {key: value for key, value in content.items() if value is not None}
