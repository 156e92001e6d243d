"""`promptray tune` from the command line: measured, kept, followed, and said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promptray.runtime.backends import HOST, OPENVINO
from promptray.runtime.bundle import Bundle
from promptray.runtime.tuning import machine_here
from tests.fuzz.small_bundle import write_small
from tests.openvino_bundle import for_openvino
from tests.promptray.command_line import Call


@pytest.fixture
def both(tmp_path: Path) -> Bundle:
    write_small(tmp_path)
    return for_openvino(tmp_path / "small.bundle", tmp_path / "both.bundle")


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.png"
    levels = np.random.default_rng(0).integers(0, 256, (60, 50), np.uint8)
    Image.fromarray(levels).save(path)
    return path


def test_what_is_measured_is_kept_followed_and_removed(
    call: Call, both: Bundle, film: Path, site: Path
) -> None:
    at = ("--site", site)
    nothing = call("tune", both.path, "--list", "--json", *at)
    assert json.loads(nothing.out)["tuning"] == []
    answer = call("tune", both.path, "--rounds", 5, "--json", *at)
    assert answer.code == 0, answer.err
    (found,) = answer.documents
    assert found["key"] == machine_here().key
    assert {each["way"]["backend"] for each in found["measured"]} == {HOST, OPENVINO}
    assert found["left_out"] == []
    assert found["stale"] is None
    (kept,) = json.loads(call("tune", both.path, "--list", "--json", *at).out)["tuning"]
    assert kept == found

    scored = call("score", both.path, film, "--modality", "DX", "--json", *at)
    (result,) = scored.documents
    assert result["backend"]["name"] == found["chosen"]["backend"]
    assert result["backend"]["threads"] == found["chosen"]["threads"]
    assert result["backend"]["reason"].startswith(f"auto: {found['reason']}")
    (usual,) = call("score", both.path, film, "--modality", "DX", "--json", "--backend", HOST, *at).documents
    for one, other in zip(result["findings"], usual["findings"], strict=True):
        assert one["score"]["logit"] == pytest.approx(other["score"]["logit"], abs=1e-4)

    shown = call("inspect", both.path, *at)
    assert "measured by `promptray tune`" in " ".join(shown.out.split())
    assert json.loads(call("inspect", both.path, "--json", *at).out)["site"]["tuning"] == [found]
    assert call("tune", both.path, "--remove", found["key"], *at).code == 0
    assert call("tune", both.path, "--list", *at).out == "Nothing was measured.\n"


def test_images_of_the_site_may_be_scored_and_the_table_names_every_way(
    call: Call, both: Bundle, film: Path, site: Path
) -> None:
    answer = call("tune", both.path, "--rounds", 5, "--images", film, "--modality", "DX", "--site", site)
    assert answer.code == 0, answer.err
    assert "over 1 images" in answer.out
    assert "openvino, 1 thread" in answer.out
    assert "chosen" in answer.out


def test_no_more_images_are_prepared_than_are_scored(
    call: Call, both: Bundle, film: Path, site: Path
) -> None:
    folder = film.with_name("films")
    folder.mkdir()
    for number in range(5):
        shutil.copy(film, folder / f"{number}.png")
    (folder / "never read.png").write_bytes(b"no image")
    said = ("--images", folder, "--modality", "DX", "--json", "--site", site)
    answer = call("tune", both.path, "--rounds", 5, *said)
    assert answer.code == 0, answer.err
    assert answer.documents[0]["images"] == 5


def test_images_without_a_modality_are_refused(call: Call, both: Bundle, film: Path, site: Path) -> None:
    answer = call("tune", both.path, "--images", film, "--site", site)
    assert answer.code == 1
    assert "image.modality-undeclared" in answer.err
    assert not list(site.iterdir())


@pytest.mark.parametrize("also", [("--images", "x"), ("--modality", "DX"), ("--remove", "key")])
def test_listing_stands_alone(call: Call, both: Bundle, site: Path, also: tuple[str, str]) -> None:
    assert call("tune", both.path, "--list", *also, "--site", site).code == 2


def test_a_key_that_is_not_there_is_named(call: Call, both: Bundle, site: Path) -> None:
    answer = call("tune", both.path, "--remove", "x86_64-none", "--site", site)
    assert answer.code == 1
    assert "no tuning entry of this key" in answer.err


def test_scores_on_openvino_are_those_of_onnxruntime(
    call: Call, both: Bundle, film: Path, site: Path
) -> None:
    answers = [
        call(
            "score", both.path, film, "--modality", "DX", "--json", "--backend", name, "--site", site
        ).documents[0]
        for name in (HOST, OPENVINO)
    ]
    assert [each["backend"]["name"] for each in answers] == [HOST, OPENVINO]
    for one, other in zip(*(each["findings"] for each in answers), strict=True):
        assert one["score"]["logit"] == pytest.approx(other["score"]["logit"], abs=1e-4)
    verified = call("verify", both.path.with_name("small.bundle"), "--backend", OPENVINO, "--site", site)
    assert verified.code == 1
    assert "backends: [onnxruntime-cpu, openvino]" in verified.err
