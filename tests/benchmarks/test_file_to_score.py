"""The benchmarks from file to score run, on small films; nothing here is timed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydicom
import pytest

from benchmarks import decoders, file_to_input, reduced_decode, throughput, usual_stack
from benchmarks.file_to_input import SAMPLE
from benchmarks.film import enlarged, write_films
from benchmarks.peers import file_to_score
from promptray.runtime.backends import HOST
from promptray.runtime.scorer import Scorer


def test_file_to_input(tmp_path: Path) -> None:
    found = file_to_input.measure(tmp_path, SAMPLE, 320, 270, rounds=2)
    assert len(found) == 6
    for name, row in found.items():
        assert row["largest_difference"] == 0.0 or "8 bit" in name
        assert set(row["total"]) == set(row["stages_ms"]) == {"usual", "promptray"}
        assert {"read", "decode", "window", "resize"} <= set(row["stages_ms"]["promptray"])


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_films(
        enlarged(SAMPLE, 320, 270), tmp_path_factory.mktemp("films"), ["uncompressed", file_to_score.SYNTAX]
    )


def test_throughput(reference_bundle: Path, films: dict[str, Path]) -> None:
    with Scorer.open(reference_bundle, backend=HOST, site=None) as scorer:
        found = throughput.measure(scorer, [films["uncompressed"]] * 3, ahead=2, rounds=2)
    assert set(found["stages"]) == {"prepare", "infer", "score_many"}
    assert found["images_per_second"] > 0


def test_the_peer_gives_the_same_scores(reference_bundle: Path, films: dict[str, Path]) -> None:
    found = file_to_score.measure(reference_bundle, films[file_to_score.SYNTAX], rounds=2)
    assert found["largest_logit_difference"] < 2e-5
    assert found["largest_logit_difference"] <= found["logit_tolerance"]
    assert set(found["total"]) == {"promptray", "usual"}
    assert found["peer"]["decoding_plugin"] == "pylibjpeg"
    assert {"pydicom", "pylibjpeg-openjpeg", "onnxruntime"} <= found["peer"]["versions"].keys()


def test_a_peer_with_other_scores_is_not_timed(
    reference_bundle: Path, films: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usual_stack, "MEAN", usual_stack.MEAN + 0.01)
    with pytest.raises(AssertionError, match="logits differ by"):
        file_to_score.measure(reference_bundle, films[file_to_score.SYNTAX], rounds=2)
    film = films[file_to_score.SYNTAX]
    found = file_to_score.measure(reference_bundle, film, rounds=2, reduced_decode=True)
    assert found["logit_tolerance"] is None


def test_the_peer_decodes_with_its_own_plugin_whatever_else_is_installed(
    films: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    take = pydicom.Dataset.pixel_array_options

    def taken(self: pydicom.Dataset, **options: Any) -> None:
        asked.append(options)
        take(self, **options)

    monkeypatch.setattr(pydicom.Dataset, "pixel_array_options", taken)
    usual_stack.network_input(films["uncompressed"])
    assert asked == []
    usual_stack.network_input(films[file_to_score.SYNTAX])
    assert asked == [{"decoding_plugin": "pylibjpeg"}]


def test_decoders(tmp_path: Path) -> None:
    found = decoders.measure(tmp_path, SAMPLE, 130, 110, rounds=2)
    assert len(found) == 5
    assert all(decoders.OURS in row and len(row) > 1 for row in found.values())


def test_reduced_decode(reference_bundle: Path, tmp_path: Path) -> None:
    samples = sorted(SAMPLE.parent.glob("*.png"))[::5]
    written = reduced_decode.write_all(samples, tmp_path, 1040, 1100)
    found = reduced_decode.compare(reference_bundle, written)
    assert found["films"] == len(samples)
    assert 0 < found["mean_logit_difference"] <= found["largest_logit_difference"]
    assert found["largest_difference_over_spread"] < 0.2
    assert found["least_rank_correlation"] == 1.0
    timed = reduced_decode.times(reference_bundle, written[0], rounds=2)
    assert set(timed["stages_ms"]) == {"whole", "reduced"}
