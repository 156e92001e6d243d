"""Every image of a batch once, in an order that is found again."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from promptray.calibrate.batch.images import digest, read_list, require_each_once
from promptray.runtime.errors import PromptRayError


def test_a_list_holds_one_path_a_line(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\ufeffa b.dcm\n\nfolder/胸.png\r\n", encoding="utf-8")
    assert read_list(tmp_path / "list.txt") == [Path("a b.dcm"), Path("folder/胸.png")]


@pytest.mark.parametrize("odd", ["\x0b", "\x0c", "\x1c", "\x85", "\u2028", "\u2029"])
def test_only_line_ends_end_a_path(tmp_path: Path, odd: str) -> None:
    (tmp_path / "list.txt").write_bytes(f"a{odd}b.dcm\r\nc.dcm".encode())
    assert read_list(tmp_path / "list.txt") == [Path(f"a{odd}b.dcm"), Path("c.dcm")]


def test_names_that_the_system_takes_for_one_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "normcase", str.lower)  # as on Windows
    with pytest.raises(PromptRayError, match="given twice"):
        require_each_once([Path("A.dcm"), Path("a.dcm")])


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_list_that_cannot_be_read(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(PromptRayError) as refused:
        read_list(tmp_path / "list.txt")
    assert refused.value.code == "batch.images"


def test_an_image_given_twice_is_counted_and_not_named() -> None:
    images = [Path("a/DOE^JANE.dcm"), Path("b.dcm"), Path("a/../a/DOE^JANE.dcm")]
    with pytest.raises(PromptRayError) as refused:
        require_each_once(images)
    assert refused.value.code == "batch.images"
    assert refused.value.found == "numbers 1 and 3 of 3 are the same file"
    assert "DOE" not in str(refused.value)
    require_each_once(images[:2])


def test_a_batch_of_nothing() -> None:
    with pytest.raises(PromptRayError) as refused:
        require_each_once([])
    assert refused.value.code == "batch.images"


def test_the_digest_knows_names_and_order() -> None:
    one, two = Path("a"), Path("b")
    assert digest([one, two]) == digest([one, two])
    assert len({digest(each) for each in ([one, two], [two, one], [one], [Path("ab")])}) == 4


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_name_that_is_no_text_has_a_digest() -> None:
    assert digest([Path(os.fsdecode(b"film-\xff.png"))]) != digest([Path("film-.png")])
