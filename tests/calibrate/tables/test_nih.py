"""The NIH's own file of labels, as it is published."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptray.calibrate.tables.csv_file import TableError
from promptray.calibrate.tables.image_list import only_listed
from promptray.calibrate.tables.labels import Labels
from promptray.calibrate.tables.nih import read_nih_labels
from promptray.runtime.packs import read_pack

# As published: the commas in brackets make columns of their own, and the edition of 2017 ends in a comma.
HEADER = (
    "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position,"
    "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]"
)
TAIL = ",58,M,PA,2682,2749,0.143,0.143"
PACK = [finding.key for finding in read_pack("chestxray14").findings]


def read(folder: Path, *rows: str, keys: list[str] = PACK, end: str = ",") -> Labels:
    path = folder / "Data_Entry_2017.csv"
    path.write_text(
        "".join(f"{line}{end}\n" for line in (HEADER, *(row + TAIL for row in rows))), encoding="utf-8"
    )
    return read_nih_labels(path, keys)


def test_every_label_of_the_nih_is_a_finding_of_the_pack(tmp_path: Path) -> None:
    names = (
        "Atelectasis Cardiomegaly Effusion Infiltration Mass Nodule Pneumonia Pneumothorax Consolidation "
        "Edema Emphysema Fibrosis Pleural_Thickening Hernia"
    ).split()
    labels = read(tmp_path, *(f"{n:08d}_000.png,{name},0,{n}" for n, name in enumerate(names)))
    assert labels.keys == tuple(PACK)
    assert labels.values.tolist() == [[int(row == column) for column in range(14)] for row in range(14)]
    assert labels.clustered


@pytest.mark.parametrize("end", [",", ""], ids=["2017", "2020"])
def test_several_none_and_patients(tmp_path: Path, end: str) -> None:
    labels = read(
        tmp_path,
        "00000001_000.png,Cardiomegaly|Effusion,0,1",
        "00000001_001.png,No Finding,1,1",
        "00000002_000.png,Hernia,0,2",
        end=end,
    )
    assert labels.values.sum(1).tolist() == [2, 0, 1]
    assert labels.patients[0] == labels.patients[1] != labels.patients[2]
    assert "Patient Age" in labels.unused


def test_only_what_is_scored_is_read(tmp_path: Path) -> None:
    assert read(tmp_path, "a.png,Mass|Hernia,0,1", keys=["hernia", "gout"]).keys == ("hernia",)
    with pytest.raises(TableError, match="chestxray14"):
        read(tmp_path, "a.png,Mass,0,1", keys=["gout"])


@pytest.mark.parametrize("cell", ["Gout", "mass", "No Finding|Mass", "Mass|", ""])
def test_other_names_are_refused_with_their_line(tmp_path: Path, cell: str) -> None:
    with pytest.raises(TableError, match="line 3, column Finding Labels"):
        read(tmp_path, "a.png,Mass,0,1", f"b.png,{cell},0,1")


def test_a_list_chooses_the_test_set(tmp_path: Path) -> None:
    rows = ("a.png,Mass,0,1", "b.png,Hernia,0,2", "c.png,Edema,0,3", "film 1.png,Mass,0,4")
    (tmp_path / "test_list.txt").write_text("c.png 0 0 1\r\n\r\na.png\r\nfilm 1.png\r\n")
    chosen = only_listed(read(tmp_path, *rows), tmp_path / "test_list.txt")
    assert [image.file for image in chosen.images] == ["a.png", "c.png", "film 1.png"]


@pytest.mark.parametrize("odd", ["\x0b", "\x85", "\u2028"])
def test_a_listed_name_may_hold_what_only_looks_like_the_end_of_a_line(tmp_path: Path, odd: str) -> None:
    labels = read(tmp_path, f"a{odd}b.png,Mass,0,1", "b.png,Mass,0,2")
    for behind in ("", " 0 1", "\t1"):
        (tmp_path / "list.txt").write_bytes(f"a{odd}b.png{behind}\r\n".encode())
        chosen = only_listed(labels, tmp_path / "list.txt")
        assert [image.file for image in chosen.images] == [f"a{odd}b.png"]


@pytest.mark.parametrize(
    ("content", "code", "place"),
    [
        (b"a.png\nz.png\n", "table.image", "list.txt, line 2"),
        (b"\n\n", "table.format", "list.txt"),
        ("a.png\n".encode("utf-16"), "table.format", "list.txt"),
    ],
)
def test_a_wrong_list_is_refused(tmp_path: Path, content: bytes, code: str, place: str) -> None:
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(TableError) as caught:
        only_listed(read(tmp_path, "a.png,Mass,0,1"), tmp_path / "list.txt")
    assert (caught.value.code, caught.value.artefact) == (code, place)


def test_an_absent_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TableError, match=r"table\.not-found"):
        only_listed(read(tmp_path, "a.png,Mass,0,1"), tmp_path / "list.txt")
