"""What a family says of its model must hang together."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from promptray.export.families import family
from promptray.export.families.base import LoadedModel
from tests.convnext_tiny import FOLDER


@pytest.fixture(scope="module")
def classifier() -> LoadedModel:
    return family("convnext").load(FOLDER / "density.ckpt", None, {"preprocessing": "squash"})


@pytest.mark.parametrize("changes", [{"set": "free"}, {"classes": None}, {"set": "free", "classes": None}])
def test_a_free_head_is_the_one_that_the_text_side_is_of(
    classifier: LoadedModel, changes: dict[str, Any]
) -> None:
    head = replace(classifier.heads[0], **changes)
    with pytest.raises(TypeError, match="text side"):
        replace(classifier, heads=[head])
    with pytest.raises(TypeError, match="text side"):
        replace(classifier, heads=[*classifier.heads, replace(head, name="other")])
