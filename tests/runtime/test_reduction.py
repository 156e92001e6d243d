"""How often a picture may be halved, and what a scorer makes of it: other scores by a little, and said."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest

from benchmarks.film import enlarged, write_films
from promptray.cli import run
from promptray.runtime.bundle.image_rules import CentreCrop, PadSquare, ResizeShorterSide, Squash
from promptray.runtime.measured_scorer import open_measured
from promptray.runtime.reduction import MARGIN, halvings
from promptray.runtime.scorer import Scorer
from tests.runtime.test_preprocess import CARZERO

SAMPLES = Path(__file__).parents[2] / "examples" / "samples"


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((2500, 2000), 2),
        ((2048, 2048), 2),
        ((4096, 4096), 3),
        ((1024, 900), 1),
        ((1023, 900), 0),
        ((80, 60), 0),
    ],
)
def test_a_margin_is_left_above_the_network(size: tuple[int, int], expected: int) -> None:
    assert halvings(CARZERO, *size) == expected
    if expected:
        assert max(size) >> expected >= MARGIN * 256


def test_the_shorter_factor_decides() -> None:
    squash = msgspec.structs.replace(CARZERO, steps=[Squash(size=224)])
    assert halvings(squash, 4000, 900) == halvings(squash, 900, 4000) == 1
    shorter = msgspec.structs.replace(CARZERO, steps=[ResizeShorterSide(size=224), CentreCrop(size=224)])
    assert halvings(shorter, 4000, 1800) == 2
    padded = msgspec.structs.replace(CARZERO, steps=[PadSquare(size=4000), Squash(size=224)])
    assert halvings(padded, 3000, 2000) == 0


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    film = enlarged(SAMPLES / "normal-1.png", 1100, 1040)
    return write_films(film, tmp_path_factory.mktemp("films"))


def test_scores_differ_a_little_and_results_say_so(reference_bundle: Path, films: dict[str, Path]) -> None:
    with Scorer.open(reference_bundle, site=None) as scorer:
        whole = scorer.score(films["JPEG 2000 lossless"])
    with open_measured(reference_bundle, site=None, reduced_decode=True) as scorer:
        reduced = scorer.score(films["JPEG 2000 lossless"])
        plain = scorer.score(films["uncompressed"])
        picture = scorer.picture(films["JPEG 2000 lossless"])
    logits = [np.array([each.logit for each in result.scores.values()]) for result in (whole, reduced, plain)]
    spread = np.ptp(logits[0])
    assert 0 < np.abs(logits[1] - logits[0]).max() < 0.1 * spread
    np.testing.assert_array_equal(logits[2], logits[0])
    assert [notice.code for notice in reduced.notices] == [*(n.code for n in whole.notices), "reduced-decode"]
    assert "reduced-decode" not in [notice.code for notice in plain.notices]
    assert "lower resolution" in (reduced.document.backend.gated_as or "")
    assert whole.document.backend.gated_as is None
    first = next(iter(whole.scores))
    assert picture.grey.shape == (1100, 1040) == reduced.heatmap(first).shape


def test_a_device_does_not_prepare_what_is_reduced(
    reference_bundle: Path, films: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="reduced_decode"):
        Scorer.open(reference_bundle, prepare="device", reduced_decode=True)
    film = str(films["JPEG 2000 lossless"])
    assert run(["score", str(reference_bundle), film, "--reduced-decode", "--prepare", "device"]) == 2
    assert "images that the CPU prepares" in capsys.readouterr().err
