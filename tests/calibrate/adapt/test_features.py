from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from numpy.typing import NDArray

from promptray.calibrate.adapt import pictures
from promptray.calibrate.adapt.features import FeatureStore, compute_features, feature_key
from promptray.calibrate.adapt.pictures import PictureReader
from promptray.calibrate.tables.image_folder import ImageFolder
from promptray.calibrate.tables.labels import LabelledImage
from promptray.export.families.density_study import study_preprocessing
from promptray.runtime.bundle.image_rules import Door
from promptray.runtime.errors import PromptRayError
from tests.calibrate.adapt.made_site import write_images

RULE = study_preprocessing(32)
COUNT = 40


@pytest.fixture
def site(tmp_path: Path) -> tuple[PictureReader, list[LabelledImage], list[str]]:
    rows = write_images(tmp_path / "images", COUNT // 2)
    reader = PictureReader(ImageFolder(tmp_path / "images"), Door(modalities=["MG"]), RULE, "MG")
    images = [LabelledImage(row["file"], n + 2) for n, row in enumerate(rows)]
    return reader, images, [f"{n:064x}" for n in range(COUNT)]


class Tower:
    """Counts the pictures it sees, and may fail after some."""

    def __init__(self, last: int | None = None) -> None:
        self.seen, self.last = 0, last

    def __call__(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        if self.last is not None and self.seen >= self.last:
            raise KeyboardInterrupt
        self.seen += len(pixels)
        return np.stack([pixels.mean((1, 2, 3)), pixels.std((1, 2, 3))], axis=1)


def compute(
    tower: Tower, site: tuple[PictureReader, list[LabelledImage], list[str]], path: Path, name: str = "t"
) -> tuple[NDArray[np.float32], dict[int, str]]:
    reader, images, hashes = site
    return compute_features(
        tower, 2, name, reader, images, hashes, FeatureStore(path), lambda stage, message, fraction: None
    )


def test_vectors_are_those_of_the_runtimes_pictures(site, tmp_path: Path) -> None:
    reader, images, _ = site
    vectors, refused = compute(Tower(), site, tmp_path / "features.safetensors")
    assert refused == {}
    for row in (0, COUNT - 1):
        pixels = reader.pixels([reader.picture(images[row])])
        assert pixels.shape == (1, 3, 32, 32)
        assert vectors[row].tolist() == [pixels.mean(), pixels.std()]


def test_what_was_computed_before_a_kill_is_not_computed_again(
    site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("promptray.calibrate.adapt.features._NEW", 8)
    path = tmp_path / "features.safetensors"
    with pytest.raises(KeyboardInterrupt):
        compute(Tower(last=32), site, path)
    again = Tower()
    vectors, _ = compute(again, site, path)
    assert again.seen == COUNT - 32
    assert (vectors == compute(Tower(), site, tmp_path / "whole.safetensors")[0]).all()
    assert path.read_bytes() == (tmp_path / "whole.safetensors").read_bytes()
    third = Tower()
    compute(third, site, path)
    assert third.seen == 0


def test_the_file_holds_hashes_and_numbers_only(site, tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    compute(Tower(), site, path)
    content = path.read_bytes()
    assert b"secret" not in content
    assert b".png" not in content
    assert all(len(name) == 64 for name in safetensors.numpy.load(content))


def test_whatever_decides_if_and_how_an_image_is_read_gives_another_name(site) -> None:
    reader, images, _ = site
    image = images[0]
    names = {
        feature_key("tower", reader, image, "file"),
        feature_key("other", reader, image, "file"),
        feature_key("tower", reader, image, "other"),
        feature_key("tower", replace(reader, rule=study_preprocessing(64)), image, "file"),
        feature_key("tower", replace(reader, door=Door(modalities=["MG", "DX"])), image, "file"),
        feature_key("tower", replace(reader, modality=None), image, "file"),
        feature_key("tower", reader, replace(image, modality="DX"), "file"),
        feature_key("tower", reader, replace(image, frame=1), "file"),
    }
    assert len(names) == 8


def test_other_rules_of_the_door_give_another_name(site, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, images, _ = site
    before = feature_key("tower", reader, images[0], "file")
    monkeypatch.setattr("promptray.calibrate.adapt.pictures._code", lambda: ("changed",))
    assert feature_key("tower", reader, images[0], "file") != before


def test_another_decoder_gives_another_name(site, monkeypatch: pytest.MonkeyPatch) -> None:
    reader, images, _ = site
    before = feature_key("tower", reader, images[0], "file")
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0")
    pictures._code.cache_clear()
    try:
        assert feature_key("tower", reader, images[0], "file") != before
    finally:
        pictures._code.cache_clear()


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"modality": None}, "image.modality-undeclared"),
        ({"modality": "DX"}, "image.modality"),
        ({"door": Door(modalities=["DX"])}, "image.modality"),
    ],
)
def test_vectors_from_elsewhere_let_nothing_in(site, tmp_path: Path, change: dict, code: str) -> None:
    """What the door refuses is refused whether or not a vector of the file is stored."""
    path = tmp_path / "features.safetensors"
    compute(Tower(), site, path)
    reader, images, files = site
    _, refused = compute(Tower(), (replace(reader, **change), images, files), path)
    assert refused == dict.fromkeys(range(COUNT), code)
    framed = [replace(image, frame=2) for image in images]
    _, refused = compute(Tower(), (reader, framed, files), path)
    assert refused == dict.fromkeys(range(COUNT), "dicom.frame")


def test_an_image_that_cannot_be_read_is_listed_and_the_others_go_on(site, tmp_path: Path) -> None:
    reader, images, _ = site
    reader.folder.files[images[3].file].write_bytes(b"no picture")
    vectors, refused = compute(Tower(), site, tmp_path / "features.safetensors")
    assert refused == {3: "image.format"}
    assert np.flatnonzero(np.isnan(vectors).any(1)).tolist() == [3]


def test_a_damaged_file_is_refused(site, tmp_path: Path) -> None:
    path = tmp_path / "features.safetensors"
    compute(Tower(), site, path)
    whole = path.read_bytes()
    vectors = safetensors.numpy.load(whole)
    name = next(iter(vectors))
    wrong = [whole[:-5], b"", safetensors.numpy.save({**vectors, name: np.zeros(3, np.float32)})]
    wrong.append(safetensors.numpy.save({**vectors, name: np.full(2, np.nan, np.float32)}))
    for content in wrong:
        path.write_bytes(content)
        with pytest.raises(PromptRayError) as refused:
            compute(Tower(), site, path)
        assert refused.value.code == "adapt.state"


def test_nan_is_no_vector(site, tmp_path: Path) -> None:
    class Broken(Tower):
        def __call__(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
            return super().__call__(pixels) * np.nan

    with pytest.raises(PromptRayError) as refused:
        compute(Broken(), site, tmp_path / "features.safetensors")
    assert refused.value.code == "score.not-finite"
