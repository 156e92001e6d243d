"""A bundle to break: its files are mere bytes."""

import shutil
from pathlib import Path

import pytest

from promptray.runtime.bundle import Bundle
from tests import bundle_factory as factory


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return factory.write_plain(tmp_path_factory.mktemp("pristine") / "chest.bundle")


@pytest.fixture
def bundle(pristine: Bundle, tmp_path: Path) -> Bundle:
    shutil.copytree(pristine.path, tmp_path / "chest.bundle")
    return Bundle.open(tmp_path / "chest.bundle")
