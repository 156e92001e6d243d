"""``--prepare device``, on a simulated GPU: what is calibrated, evaluated and verified is what is scored."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from promptray.runtime.bundle import Bundle
from promptray.runtime.bundle.validate_engines import PREPARE
from tests.fake_cuda import Gpu
from tests.fake_tensorrt import simulated_tensorrt
from tests.labelled_images import Labelled, labelled
from tests.prepare_bundle import with_prepare
from tests.promptray.command_line import Call
from tests.runtime.backends.test_tensorrt_prepare import of_8_bits
from tests.simulated_engines import store_preparing_engines

DEVICE = ("--backend", "tensorrt", "--prepare", "device")
CPU = ("--backend", "tensorrt")


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Labelled:
    folder = tmp_path_factory.mktemp("labelled")
    made = labelled(folder)
    bundle = with_prepare(Bundle.open(made.bundle), folder / "prepare.bundle")
    return made._replace(bundle=bundle.path)


@pytest.fixture
def gpu(films: Labelled, site: Path) -> Iterator[Gpu]:
    with simulated_tensorrt() as (gpu, _):
        store_preparing_engines(Bundle.open(films.bundle), site, gpu)
        yield gpu
        gpu.assert_clean()


def scores(call: Call, films: Labelled, site: Path, *where: str) -> dict[str, Any]:
    image = films.images / films.names[0]
    answer = call("score", films.bundle, image, "--modality", "DX", "--site", site, "--json", *where)
    assert answer.code == 0, answer.err
    (document,) = answer.documents
    return document


def test_a_calibration_is_of_scores_prepared_where_it_was_fitted(
    call: Call, films: Labelled, site: Path, gpu: Gpu
) -> None:
    answer = call(
        "calibrate", films.bundle, films.labels, "--images", films.images, "--modality", "DX",
        "--site", site, "--draws", 50, "--json", *DEVICE,
    )  # fmt: skip
    assert answer.code == 0, answer.err
    (document,) = answer.documents
    assert document["backend"]["prepare"] == "device"
    there, elsewhere = scores(call, films, site, *DEVICE), scores(call, films, site, *CPU)
    assert all(each["score"]["probability"] is not None for each in there["findings"])
    assert all(each["score"]["probability"] is None for each in elsewhere["findings"])
    assert "calibration-machine" in [each["code"] for each in elsewhere["notices"]]


@pytest.mark.parametrize(("where", "said"), [(DEVICE, "device"), (CPU, "cpu")])
def test_an_evaluation_says_where_images_were_prepared(
    call: Call, films: Labelled, site: Path, gpu: Gpu, where: tuple[str, ...], said: str
) -> None:
    common = ("--images", films.images, "--modality", "DX", "--site", site, "--draws", 50, "--json", *where)
    answer = call("evaluate", films.bundle, "--labels", films.labels, *common)
    assert answer.code == 0, answer.err
    (document,) = answer.documents
    assert document["scores"]["backend"]["prepare"] == said


def test_verify_prepares_every_golden_image_and_every_frame_on_the_device(
    call: Call, films: Labelled, site: Path, gpu: Gpu
) -> None:
    said = call("verify", films.bundle, "--site", site, *DEVICE)
    assert said.code == 0, said.err
    assert "prepared on the device: pixels off by" in said.out
    (document,) = call("verify", films.bundle, "--site", site, "--json", *DEVICE).documents
    assert 0 <= document["golden"]["level_error"] <= 1.001
    (document,) = call("verify", films.bundle, "--site", site, "--json", *CPU).documents
    assert document["golden"]["level_error"] is None


def test_verify_refuses_other_pixels_than_the_cpus(call: Call, films: Labelled, site: Path, gpu: Gpu) -> None:
    bundle = Bundle.open(films.bundle)
    store_preparing_engines(bundle, site, gpu, content=of_8_bits(bundle.read(PREPARE)))
    answer = call("verify", films.bundle, "--site", site, *DEVICE)
    assert answer.code == 1
    assert "bundle.golden" in answer.err
    assert call("verify", films.bundle, "--site", site, *CPU).code == 0


@pytest.mark.parametrize("command", ["score", "exam", "verify", "evaluate", "calibrate"])
def test_where_nothing_prepares_on_the_device_every_command_refuses(
    call: Call, films: Labelled, site: Path, command: str
) -> None:
    image = films.images / films.names[0]
    more = {
        "score": (image, "--modality", "DX"),
        "exam": (image, "--modality", "DX"),
        "verify": (),
        "evaluate": ("--labels", films.labels, "--images", films.images, "--modality", "DX"),
        "calibrate": (films.labels, "--images", films.images, "--modality", "DX"),
    }[command]
    answer = call(command, films.bundle, *more, "--site", site, "--prepare", "device")
    assert answer.code == 1
    assert "engine.no-prepare" in answer.err


def test_whoever_may_decode_less_is_told_what_has_to_pass_first(call: Call) -> None:
    assert "`promptray gate-decode` must have passed" in " ".join(call("score", "--help").out.split())
    page = Path(__file__).parents[2] / "docs" / "decoding.md"
    assert "off by default, and refused (`decode.ungated`)" in page.read_text(encoding="utf-8")
