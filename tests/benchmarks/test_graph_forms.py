"""Forms of the graphs give the answers of what is shipped; what they take is not looked at."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from benchmarks import graph_forms, graph_surgery
from benchmarks.graph_forms import TOLERANCE, GraphForms, Row, main


def measured(bundle: Path, tmp_path: Path) -> dict[str, list[Row]]:
    output = tmp_path / "result.json"
    main([str(bundle), "--prompts", "2,5", "--rounds", "2", "--threads", "1", "-o", str(output)])
    return msgspec.json.decode(output.read_bytes(), type=GraphForms).questions


def test_every_form_of_carzero_gives_the_same_answers(carzero_bundle: Path, tmp_path: Path) -> None:
    found = measured(carzero_bundle, tmp_path)
    assert [question.partition(",")[2] for question in found][2:] == [" 2 prompts"] * 2 + [" 5 prompts"] * 2
    for row in (row for rows in found.values() for row in rows):
        assert row.not_run is None
        assert row.difference is not None
        assert row.difference <= TOLERANCE
    forms = {row.form: row for row in found["image side"]}
    assert forms["attention: with its projection"].operators == ("Attention",)
    assert forms["attention: opset 23"].operators == ()


def test_what_a_family_has_not_is_said(open_clip_independent_bundle: Path, tmp_path: Path) -> None:
    found = measured(open_clip_independent_bundle, tmp_path)
    (row,) = found["head, 2 prompts"]
    assert row.times is None
    assert row.not_run == "the bank has no values of an attention"
    assert all(row.times for row in found["from the 8-bit picture to features"])


def test_a_form_with_other_answers_is_not_timed(
    carzero_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(graph_surgery, "fused_by_tool", lambda content, kind: content)
    monkeypatch.setattr(graph_forms, "difference", lambda found, expected: float("nan"))
    with pytest.raises(AssertionError, match="answers differ"):
        measured(carzero_bundle, tmp_path)
