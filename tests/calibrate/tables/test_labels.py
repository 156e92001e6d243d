"""Labels: what each cell means, and what a table of labels must not say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from promptray.calibrate.tables.csv_file import TableError
from promptray.calibrate.tables.labels import Labels, known, read_labels

KEYS = ("edema", "mass")


def read(folder: Path, content: str, **options) -> Labels:
    path = folder / "labels.csv"
    path.write_text(content, encoding="utf-8")
    return read_labels(path, KEYS, **options)


def test_the_values_of_a_cell(tmp_path: Path) -> None:
    labels = read(tmp_path, "file,mass\na,1\nb,0\nc,\nd,-1\ne,1.0\n")
    assert labels.keys == ("mass",)
    for uncertain, counts, present in (
        ("ignore", [1, 1, 0, 0, 1], [1, 0, 0, 0, 1]),
        ("present", [1, 1, 0, 1, 1], [1, 0, 0, 1, 1]),
        ("absent", [1, 1, 0, 1, 1], [1, 0, 0, 0, 1]),
    ):
        found = known(labels.values, uncertain)
        np.testing.assert_array_equal(found[0][:, 0], np.array(counts, bool))
        np.testing.assert_array_equal(found[1][:, 0], np.array(present, bool))


def test_without_patients_every_image_is_one(tmp_path: Path) -> None:
    labels = read(tmp_path, "file,mass,view,note\na,1,PA,\nb,0,L,x\n")
    assert not labels.clustered
    assert len(set(labels.patients)) == 2
    assert labels.sources is None
    assert labels.unused == ("view", "note")


def test_all_columns(tmp_path: Path) -> None:
    labels = read(
        tmp_path,
        "frame,file,mass,patient_id,source,modality,edema\n"
        "1,loop.dcm,1,P7,here,,0\n2,loop.dcm,0,P7,here,,0\n,film.png,0,P8,,DX,1\n",
    )
    assert [image.name for image in labels.images] == ["loop.dcm#1", "loop.dcm#2", "film.png"]
    assert [image.modality for image in labels.images] == [None, None, "DX"]
    assert labels.patients[0] == labels.patients[1] != labels.patients[2]
    assert labels.sources == ["here", "here", "not stated"]
    assert labels.keys == ("mass", "edema")
    assert labels.unused == ()


def test_columns_of_other_names(tmp_path: Path) -> None:
    content = "file,Mass,Oedema\na,1,0\n"
    labels = read(
        tmp_path, content, renamed={"Oedema": "edema"}, aliases={"Mass": "mass", "Nodule": "nodule"}
    )
    assert set(labels.keys) == {"mass", "edema"}
    assert labels.values[0, labels.keys.index("mass")] == 1
    assert labels.values[0, labels.keys.index("edema")] == 0


def test_some_images_of_many(tmp_path: Path) -> None:
    labels = read(tmp_path, "file,mass,patient_id,source\na,1,x,s\nb,0,y,t\nc,1,x,s\n").select([2, 1])
    assert [image.file for image in labels.images] == ["c", "b"]
    assert labels.values.tolist() == [[1], [0]]
    assert labels.sources == ["s", "t"]


@pytest.mark.parametrize(
    ("content", "code", "place"),
    [
        ("mass\n1\n", "table.format", "labels.csv, line 1, column file"),
        ("file,lump\na,1\n", "table.finding", "labels.csv, line 1"),
        ("file,mass\na,1\nb,2\n", "table.format", "labels.csv, line 3, column mass"),
        ("file,mass\na,yes\n", "table.format", "labels.csv, line 2, column mass"),
        ("file,mass\na,1\nb,0\na,1\n", "table.format", "labels.csv, line 4, column file"),
        ("file,mass\n,1\n", "table.format", "labels.csv, line 2, column file"),
        ("file,mass,patient_id\na,1,\n", "table.format", "labels.csv, line 2, column patient_id"),
        ("file,mass,frame\na,1,0\n", "table.format", "labels.csv, line 2, column frame"),
        ("file,mass,frame\na,1,1.5\n", "table.format", "labels.csv, line 2, column frame"),
        ("file;mass\na;1\n", "table.format", "labels.csv, line 1"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: str, code: str, place: str) -> None:
    with pytest.raises(TableError) as caught:
        read(tmp_path, content)
    assert (caught.value.code, caught.value.artefact) == (code, place)
    assert caught.value.cure


@pytest.mark.parametrize(
    ("renamed", "message"),
    [
        ({"Mass": "lump"}, "no finding has this key"),
        ({"Mass": "mass"}, "two columns stand for the same finding"),
        ({"Lump": "mass"}, "a column is missing"),
    ],
)
def test_a_wrong_renaming_is_named(tmp_path: Path, renamed: dict[str, str], message: str) -> None:
    with pytest.raises(TableError, match=message):
        read(tmp_path, "file,mass,Mass\na,1,1\n", renamed=renamed)
