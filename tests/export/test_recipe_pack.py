"""``pack:`` in a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from promptray.export.families.open_clip import FAMILY as OPEN_CLIP
from promptray.export.model_facts import describe
from promptray.export.recipe import Recipe, read_recipe
from promptray.runtime.errors import BuildError
from promptray.runtime.packs import read_pack
from tests import open_clip_tiny
from tests.carzero_tiny import recipe
from tests.planned import planned


def read(folder: Path, **changes: Any) -> Recipe:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(**changes), sort_keys=False), encoding="utf-8")
    return read_recipe(path)


def test_a_pack_stands_alone(tmp_path: Path) -> None:
    found = read(tmp_path, pack="chestxray14", findings=None).findings
    assert [(each.key, each.prompt, each.code) for each in found] == [
        (each.key, each.prompts, each.code) for each in read_pack("chestxray14").findings
    ]


def test_own_findings_follow_those_of_the_packs(tmp_path: Path) -> None:
    own = [{"key": "rib fracture", "prompt": "There is rib fracture."}]
    found = read(tmp_path, pack=["chexpert5", "chestxdet10"], findings=own).findings
    keys = [each.key for each in found]
    assert keys[:5] == [each.key for each in read_pack("chexpert5").findings]
    assert keys[-1] == "rib fracture"
    assert len(keys) == len(set(keys)) == 5 + 7 + 1  # three of ChestX-Det10's ten are CheXpert's, too


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "unknown": ({"pack": "chestxray15"}, "key pack", "no prompt pack has this name"),
    "relation": ({"pack": "birads-density"}, "key pack", "hang together in another way"),
    "order is not said": (
        {"pack": "birads-density", "relation": "exclusive", "findings": None},
        "key pack",
        "expected relation: ordinal",
    ),
    "a scale beside another pack": (
        {"pack": ["birads-density", "chexpert5"], "relation": "ordinal", "findings": None},
        "key pack",
        "the pack is a scale",
    ),
    "templates": ({"pack": "chexpert5", "templates": ["a {}"]}, "key pack", "whole wordings"),
    "worded differently": ({"pack": ["chestxray14", "openi18"]}, "key pack", "word a finding differently"),
    "not text": ({"pack": 5}, "key pack", "Expected text or a list of texts"),
    "nothing": ({"findings": []}, "key findings", "Expected a list of"),
    "key taken": (
        {"pack": "chexpert5", "findings": [{"key": "atelectasis"}]},
        "key findings[0].key",
        "two findings have the same key",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_is_refused_with_line_and_key(tmp_path: Path, case: str) -> None:
    changes, place, message = REFUSED[case]
    with pytest.raises(BuildError, match=message) as caught:
        read(tmp_path, **changes)
    assert caught.value.code == "recipe.invalid"
    artefact = str(caught.value.artefact)
    assert artefact.startswith("recipe.yaml, line ")
    assert artefact.endswith(place)


def test_an_ensemble_of_alternatives_reaches_the_bundles_findings_as_published(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    changes = {"pack": "rsna-pneumonia", "relation": "exclusive", "findings": []}
    path.write_text(
        yaml.safe_dump({**open_clip_tiny.recipe(), **changes, "templates": None}), encoding="utf-8"
    )
    facts = describe(OPEN_CLIP.load(open_clip_tiny.FOLDER / open_clip_tiny.WEIGHTS, None, {}))
    _, made = planned(read_recipe(path), facts, path.name)
    assert [(each.key, each.prompts) for each in made] == [
        (each.key, each.prompts) for each in read_pack("rsna-pneumonia").findings
    ]
