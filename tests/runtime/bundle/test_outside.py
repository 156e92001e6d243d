"""Nothing is written into a bundle, whichever command is asked to."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.outside import require_outside
from promptray.runtime.errors import PromptRayError
from tests.fuzz.small_bundle import write_small


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outside")
    write_small(folder)
    return folder / "small.bundle"


@pytest.mark.parametrize("inside", ["", "report", "graphs/report", "a/b/c", "../small.bundle/report"])
def test_a_place_in_a_bundle_is_refused(small: Path, inside: str) -> None:
    with pytest.raises(PromptRayError) as refused:
        require_outside(small / inside)
    assert refused.value.code == "output.in-bundle"
    assert str(small.parent) not in str(refused.value.to_json())


def test_a_link_into_a_bundle_is_refused(small: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(small / "graphs", target_is_directory=True)
    with pytest.raises(PromptRayError):
        require_outside(tmp_path / "link" / "report")


def test_a_place_beside_a_bundle_is_not(small: Path, tmp_path: Path) -> None:
    require_outside(small.parent / "report")
    (tmp_path / "bundle.json").touch()  # of something else: it has no seal
    require_outside(tmp_path / "report")
    Bundle.open(small)
