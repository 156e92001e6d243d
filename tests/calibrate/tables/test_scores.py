"""Scores survive the way to a CSV and back, to the last bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from promptray.calibrate.tables.csv_file import TableError
from promptray.calibrate.tables.scores import ScoreTable, read_scores, write_scores


def test_what_is_written_is_read(tmp_path: Path) -> None:
    logits = np.random.default_rng(0).normal(size=(3, 2))
    logits[1] = np.nan
    softmax = np.array([[0.25, np.nan], [np.nan, np.nan], [0.1, 0.2]])
    names = ["a, b.png", 'c "d".png', "loop.dcm#2"]
    table = ScoreTable("chest", names, ("edema", "mass"), {"logit": logits, "softmax": softmax})
    (tmp_path / "scores.csv").write_bytes(write_scores(table))
    found = read_scores(tmp_path / "scores.csv")
    assert (found.names, found.keys) == ([names[0], names[2]], ("edema", "mass"))
    np.testing.assert_array_equal(found.raw(), logits[[0, 2]])
    np.testing.assert_array_equal(found.values["softmax"], softmax[[0, 2]])


def test_a_table_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text("finding,note,score,file\nmass,x,-1.5,a\nedema,,2,b\n")
    found = read_scores(tmp_path / "scores.csv")
    assert list(found.values) == ["score"]
    np.testing.assert_array_equal(found.raw(), [[-1.5, np.nan], [np.nan, 2]])


@pytest.mark.parametrize(
    ("content", "place"),
    [
        ("file,finding\na,mass\n", "scores.csv, line 1, column score"),
        ("file,score\na,1\n", "scores.csv, line 1, column finding"),
        ("file,finding,score\na,mass,\n", "scores.csv, line 2, column score"),
        ("file,finding,score\na,mass,nan\n", "scores.csv, line 2, column score"),
        ("file,finding,score\na,mass,1\nb,mass,2\na,mass,1\n", "scores.csv, line 4, column file"),
        ("file,finding,logit,softmax\na,mass,1,high\n", "scores.csv, line 2, column softmax"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, content: str, place: str) -> None:
    (tmp_path / "scores.csv").write_text(content)
    with pytest.raises(TableError) as caught:
        read_scores(tmp_path / "scores.csv")
    assert (caught.value.code, caught.value.artefact) == ("table.format", place)
