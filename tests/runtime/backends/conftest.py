"""A miniature bundle with engines on a simulated GPU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from promptray.runtime.bundle import Bundle
from tests.fake_cuda import Gpu
from tests.fake_tensorrt import TensorRT, simulated_tensorrt
from tests.fuzz.small_bundle import write_small


@pytest.fixture(scope="session")
def miniature(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of a few kilobytes with image, head and text graph. Read only."""
    folder = tmp_path_factory.mktemp("miniature")
    write_small(folder)
    return Bundle.open(folder / "small.bundle")


@pytest.fixture
def tensorrt() -> Iterator[tuple[Gpu, TensorRT]]:
    """A simulated GPU with TensorRT; at the end nothing may be held, and no rule be broken."""
    with simulated_tensorrt() as (gpu, library):
        yield gpu, library
        gpu.assert_clean()


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An empty site directory."""
    folder = tmp_path / "site"
    folder.mkdir()
    return folder
