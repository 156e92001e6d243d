"""The density classifier with its rule, and a scorer of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from promptray import Scorer
from tests.examinations import density_bundle


@pytest.fixture(scope="module")
def bundle(shared_dir: Path) -> Path:
    return density_bundle(shared_dir)


@pytest.fixture(scope="module")
def scorer(bundle: Path) -> Iterator[Scorer]:
    with Scorer.open(bundle, site=None) as opened:
        yield opened
