"""What is refused before the first image is scored."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from promptray.calibrate.evaluate import Settings
from promptray.calibrate.evaluation import evaluate_scorer
from promptray.calibrate.pointing_game import PointingGame
from promptray.calibrate.tables.image_folder import ImageFolder
from promptray.runtime.errors import ScoringError
from tests import bundle_factory as factory
from tests.calibrate.labelled import make


def test_a_model_without_maps_cannot_play_the_pointing_game(tmp_path: Path) -> None:
    manifest = factory.manifest(heads=[{**factory.head(), "map": None}])
    scorer = SimpleNamespace(bundle=SimpleNamespace(manifest=manifest))
    with pytest.raises(ScoringError, match=r"score\.map-unavailable"):
        evaluate_scorer(
            scorer, make()[0], ImageFolder(tmp_path), Settings(), game=PointingGame("boxes.csv", {})
        )  # type: ignore[arg-type]
