"""The made-up site adapted once for all test processes: a dual encoder in three stages, a ConvNeXt in two."""

from __future__ import annotations

from pathlib import Path

import pytest
from filelock import FileLock

from promptray.calibrate.adapt.cases import Columns
from promptray.calibrate.adapt.run import Settings, adapt
from promptray.calibrate.adapt.run_folder import REPORT
from tests.calibrate.adapt.made_site import convnext_recipe, write_images, write_table, zero_shot_recipe

PATIENTS = 48
SETTINGS = Settings(modality="MG", training={"epochs": 2, "batch": 16}, draws=200)
COLUMNS = Columns("density")


@pytest.fixture(scope="session")
def site(shared_dir: Path) -> Path:
    """Images, ``labels.csv``, ``dual/recipe.yaml`` and ``convnext/recipe.yaml``. Read only."""
    folder = shared_dir / "adapt-site"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(shared_dir / "adapt-site.lock"):
        if not (folder / "labels.csv").exists():
            rows = write_images(folder / "images", PATIENTS)
            zero_shot_recipe(folder / "dual")
            convnext_recipe(folder / "convnext")
            write_table(folder / "labels.csv", rows)
    return folder


def _adapted(shared: Path, site: Path, name: str) -> Path:
    output = shared / f"adapted-{name}"
    with FileLock(shared / f"adapted-{name}.lock"):
        if not (output / REPORT).exists():
            labels, recipe = site / "labels.csv", site / name / "recipe.yaml"
            adapt(recipe, site / "images", labels, COLUMNS, output, SETTINGS, cache=shared / "cache")
    return output


@pytest.fixture(scope="session")
def adapted_dual(shared_dir: Path, site: Path) -> Path:
    """Output of the dual encoder's adaptation: zero-shot, probe, fine-tuning. Read only."""
    return _adapted(shared_dir, site, "dual")


@pytest.fixture(scope="session")
def adapted_convnext(shared_dir: Path, site: Path) -> Path:
    """Output of the ConvNeXt's adaptation: probe, fine-tuning. Read only."""
    return _adapted(shared_dir, site, "convnext")
