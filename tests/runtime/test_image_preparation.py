"""Which pictures a device takes: grey ones of its sizes with a table; all others have a notice."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from promptray.runtime.bundle import Bundle
from promptray.runtime.dicom.greyscale import Tabulated
from promptray.runtime.engines.facts import EngineFacts
from promptray.runtime.engines.settings import Range, Settings
from promptray.runtime.image_preparation import ImagePreparation
from promptray.runtime.picture import Kind, Picture, SourceFacts, notice
from promptray.runtime.prepare_graph import StoredImage
from promptray.runtime.preprocess import NetworkInput
from tests.engine_factory import engine_set
from tests.fuzz.small_bundle import write_small

GREY = np.arange(48 * 40, dtype=np.uint16).reshape(48, 40).astype(np.uint8)
COLOUR = np.stack([GREY, GREY, GREY[::-1]], axis=2)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("small")
    write_small(folder)
    return Bundle.open(folder / "small.bundle")


def engines(bundle: Bundle, most: int = 48) -> EngineFacts:
    return engine_set(bundle.manifest, {}, settings=Settings(sides=Range(tuned=40, least=40, most=most)))


def picture(kind: Kind, grey: np.ndarray = GREY, **changes: object) -> Picture:
    facts = SourceFacts(kind, *grey.shape)
    return Picture(grey, facts, (notice("window-absent"),), **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "taken",
    [picture("png"), picture("jpeg"), picture("array"), picture("dicom", tabulated=Tabulated.of_grey(GREY))],
)
def test_the_device_takes_grey_with_a_table(bundle: Bundle, taken: Picture) -> None:
    image, notices = ImagePreparation(bundle.manifest.preprocessing, engines(bundle)).image(taken)
    assert isinstance(image, StoredImage)
    assert (image.tabulated.grey == GREY).all()
    assert notices == taken.notices


@pytest.mark.parametrize(
    "left",
    [
        picture("png", colour=COLOUR),
        picture("dicom"),
        picture("png", np.pad(GREY, ((0, 1), (0, 0)))),
        picture("png", GREY[:, :39]),
    ],
    ids=["colour", "no table", "larger", "smaller"],
)
def test_what_it_leaves_to_the_cpu_has_a_notice(bundle: Bundle, left: Picture) -> None:
    spec = bundle.manifest.preprocessing
    if left.colour is not None:
        spec = msgspec.structs.replace(spec, colour="rgb")
    image, notices = ImagePreparation(spec, engines(bundle)).image(left)
    assert isinstance(image, NetworkInput)
    assert [each.code for each in notices] == ["window-absent", "prepared-on-cpu"]


def test_without_engines_that_do_it_the_cpu_prepares_and_nothing_is_said(bundle: Bundle) -> None:
    preparation = ImagePreparation(bundle.manifest.preprocessing, None)
    image, notices = preparation.image(picture("png"))
    assert isinstance(image, NetworkInput)
    assert not preparation.on_device
    assert [each.code for each in notices] == ["window-absent"]
