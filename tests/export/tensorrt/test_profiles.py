"""Shapes of engines: images of a call, prompts of a call, and one profile for each row bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptray.export.tensorrt import profiles_for
from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.manifest import Manifest
from promptray.runtime.engines.settings import Range, Settings
from promptray.runtime.errors import BuildError
from promptray.runtime.graphs import own_bank
from promptray.runtime.prompts import BankEntry, PromptBank
from tests.bundle_factory import HEAD_GRAPH, SIDE, WIDTH, document, manifest


@pytest.fixture(scope="module")
def miniature() -> Manifest:
    return manifest()


def head_shapes(made: Manifest, settings: Settings, **own: Any) -> list[dict[str, Any]]:
    (graph,) = [each for each in made.graphs if each.file == HEAD_GRAPH]
    return [dict(profile.shapes) for profile in profiles_for(graph, made, settings, **own)]


def test_images_are_the_only_dimension_of_the_image_graph(miniature: Manifest) -> None:
    graph = miniature.graph("image")
    assert graph is not None
    (profile,) = profiles_for(graph, miniature, Settings(images=Range(least=1, tuned=2, most=16)))
    assert profile.shapes == {"pixels": tuple((images, 3, SIDE, SIDE) for images in (1, 2, 16))}


def test_a_head_has_a_profile_for_each_row_bucket(miniature: Manifest) -> None:
    profiles = head_shapes(miniature, Settings())
    assert [shapes["row_bias"] for shapes in profiles] == [
        ((1, 4), (2, 4), (256, 4)),
        ((1, 8), (2, 8), (256, 8)),
    ]
    assert profiles[0]["image_query"] == tuple((images, 2, WIDTH // 2) for images in (1, 1, 8))


def entry(key: str, rows: int) -> BankEntry:
    def zeros(*shape: int) -> Any:
        return np.zeros(shape, np.float32)

    tensors = {
        "query": zeros(WIDTH),
        "keys.0": zeros(2, WIDTH // 2, rows),
        "values.0": zeros(2, rows, WIDTH // 2),
        "row_bias": zeros(rows),
    }
    return BankEntry(key, (), tensors)


def test_buckets_are_tuned_for_the_prompts_that_they_hold(miniature: Manifest) -> None:
    rule = miniature.heads[0].bank
    own = PromptBank(rule, [entry("a", 3), entry("b", 4), entry("c", 2)])
    first, second = head_shapes(miniature, Settings(), own=own)
    assert [first["row_bias"], second["row_bias"]] == [((1, 4), (3, 4), (256, 4)), ((1, 8), (1, 8), (256, 8))]


def test_more_prompts_than_usual_are_accepted(miniature: Manifest) -> None:
    own = PromptBank(miniature.heads[0].bank, [entry(str(number), 4) for number in range(300)])
    assert head_shapes(miniature, Settings(), own=own)[0]["row_bias"] == ((1, 4), (300, 4), (300, 4))


def test_a_head_without_rows_is_tuned_for_all_its_prompts(open_clip_bundle: Path) -> None:
    bundle = Bundle.open(open_clip_bundle)
    (head,) = bundle.manifest.heads
    graph = bundle.manifest.graph("head", head.name)
    assert graph is not None
    own = own_bank(bundle, head)
    (profile,) = profiles_for(graph, bundle.manifest, Settings(), own=own)
    prompts = [
        shapes for name, shapes in profile.shapes.items() if name in {each.name for each in head.bank.tensors}
    ]
    assert [[shape[0] for shape in shapes] for shapes in prompts] == [[1, len(own.entries), 256]]


def test_a_recipe_may_say_the_range(miniature: Manifest) -> None:
    asked = Settings(prompts=Range(least=2, tuned=16, most=64))
    assert head_shapes(miniature, asked)[0]["row_bias"] == ((2, 4), (16, 4), (64, 4))


@pytest.mark.parametrize(
    "settings",
    [
        Settings(prompts=Range(tuned=1, most=1)),
        Settings(prompts=Range(least=3, tuned=2, most=8)),
        Settings(images=Range(least=1, tuned=9, most=8)),
    ],
)
def test_a_range_that_cannot_be_is_refused(miniature: Manifest, settings: Settings) -> None:
    with pytest.raises(BuildError, match="range of sizes") as refused:
        head_shapes(miniature, settings)
    assert refused.value.code == "engine.build-failed"


def test_a_fixed_set_always_goes_whole() -> None:
    plain = document()
    plain["heads"][0] |= {"set": "fixed"}
    profiles = head_shapes(manifest(heads=plain["heads"]), Settings(prompts=Range(tuned=1, most=8)))
    assert [shapes["query"] for shapes in profiles] == [((2, WIDTH),) * 3] * 2


def test_other_graphs_have_none(miniature: Manifest) -> None:
    text = miniature.graph("text")
    assert text is not None
    with pytest.raises(ValueError, match="role text"):
        profiles_for(text, miniature, Settings())
