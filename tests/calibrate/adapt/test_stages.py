from __future__ import annotations

import json
from pathlib import Path

import pytest

from promptray.calibrate.adapt.source import read_source
from promptray.calibrate.adapt.stages import choose_stages, tower_sha256
from promptray.export.tunable import load_tunable
from promptray.runtime.errors import PromptRayError
from tests import open_clip_tiny
from tests.calibrate.adapt.made_site import convnext_recipe, zero_shot_recipe


def tower_of(checkpoint: Path, **options: object) -> str:
    return tower_sha256(load_tunable("open_clip", checkpoint, None, {"image_heads": 4, **options}))


def test_whatever_changes_a_vector_changes_the_towers_hash(tmp_path: Path) -> None:
    checkpoint = open_clip_tiny.copy_folder(tmp_path / "same")
    first = tower_of(checkpoint)
    assert tower_of(checkpoint) == first
    assert tower_of(checkpoint, image_heads=2) != first  # no weight differs
    assert tower_of(checkpoint, resize="squash") != first

    def pooled(config: dict) -> None:
        config["model_cfg"]["vision_cfg"]["timm_pool"] = "avg"

    assert tower_of(open_clip_tiny.copy_folder(tmp_path / "other", config=pooled)) != first


def test_stages_are_made_in_order_and_only_those_that_can_be(tmp_path: Path) -> None:
    dual, classifier = (
        read_source(zero_shot_recipe(tmp_path / "a")),
        read_source(convnext_recipe(tmp_path / "b")),
    )
    assert choose_stages(["fine-tune", "zero-shot"], dual) == (["zero-shot", "fine-tune"], [])
    assert choose_stages(None, dual) == (["zero-shot", "probe", "fine-tune"], [])
    stages, notes = choose_stages(None, classifier)
    assert stages == ["probe", "fine-tune"]
    assert len(notes) == 1
    with pytest.raises(PromptRayError) as refused:
        choose_stages(["zero-shot"], classifier)
    assert refused.value.code == "adapt.recipe"


def test_a_run_rests_on_the_files_beside_the_checkpoint(tmp_path: Path) -> None:
    checkpoint = open_clip_tiny.copy_folder(tmp_path / "model")
    source = read_source(zero_shot_recipe(tmp_path, checkpoint=str(checkpoint)))
    before = source.model_sha256
    assert {checkpoint.name, "open_clip_config.json", "vocab.txt"} <= before.keys()
    config = checkpoint.with_name("open_clip_config.json")
    config.write_text(json.dumps(json.loads(config.read_text()), indent=4))
    assert read_source(source.path).model_sha256 != before
