"""`promptray prompts`: what a site adds, removes, exports and imports."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from tests.carzero_tiny import PROMPTS
from tests.promptray.command_line import Call


def keys(call: Call, bundle: Path, site: Path) -> list[str]:
    (document,) = call("prompts", bundle, "list", "--site", site, "--json").documents
    return [finding["key"] for finding in document["findings"]]


def test_prompts_are_added_and_removed_at_the_site(call: Call, bundle: Path, site: Path, image: Path) -> None:
    code = ("--code", "33737001", "SCT", "Fracture of rib")
    assert (
        call("prompts", bundle, "add", "rib fracture", "There is rib fracture.", *code, "--site", site).code
        == 0
    )
    assert keys(call, bundle, site) == [*PROMPTS, "rib fracture"]
    assert "rib fracture" in call("inspect", bundle, "--site", site).out
    assert "rib fracture" in call("prompts", bundle, "list", "--site", site).out

    (document,) = call("score", bundle, image, "--modality", "DX", "--json", "--site", site).documents
    added = document["findings"][-1]
    assert (added["key"], added["origin"]) == ("rib fracture", "site")
    assert added["code"]["value"] == "33737001"
    (alone,) = call("score", bundle, image, "--modality", "DX", "--json", "--no-site").documents
    assert [item["key"] for item in alone["findings"]] == list(PROMPTS)

    assert call("prompts", bundle, "remove", "rib fracture", "--site", site).code == 0
    assert call("prompts", bundle, "remove", "effusion", "--site", site).code == 0
    assert keys(call, bundle, site) == [key for key in PROMPTS if key != "effusion"]


def test_prompts_travel_in_a_file_to_a_bundle_without_text_graph(
    call: Call, bundle: Path, carzero_bundle_no_text: Path, site: Path, tmp_path: Path
) -> None:
    file = tmp_path / "rib.safetensors"
    call("prompts", bundle, "add", "rib fracture", "There is rib fracture.", "--site", site)
    assert call("prompts", bundle, "export", "rib fracture", "-o", file, "--site", site).code == 0
    assert call("prompts", carzero_bundle_no_text, "import", file, "--site", site).code == 0
    assert keys(call, carzero_bundle_no_text, site) == [*PROMPTS, "rib fracture"]
    again = call("prompts", carzero_bundle_no_text, "import", file, "--site", site)
    assert again.code == 1
    assert "[prompt.exists]" in again.err


PROMPT_REFUSALS: dict[str, tuple[tuple[str, ...], str]] = {
    "taken key": (("add", "effusion"), "prompt.exists"),
    "unusable key": (("add", "a/b", "There is edema."), "prompt.invalid"),
    "nothing left": (("add", "edema", "Edema"), "prompt.empty"),
    "unknown key": (("remove", "measles"), "prompt.unknown"),
    "unknown export": (("export", "measles", "-o", "x.safetensors"), "prompt.unknown"),
}


@pytest.mark.parametrize("case", PROMPT_REFUSALS)
def test_a_prompt_that_cannot_be_is_refused(call: Call, bundle: Path, site: Path, case: str) -> None:
    arguments, code = PROMPT_REFUSALS[case]
    answer = call("prompts", bundle, *arguments, "--site", site)
    assert (answer.code, answer.out) == (1, "")
    assert f"[{code}]" in answer.err
    assert keys(call, bundle, site) == list(PROMPTS)


def test_an_export_never_overwrites_and_a_missing_import_is_named(
    call: Call, bundle: Path, site: Path, tmp_path: Path
) -> None:
    (tmp_path / "kept").write_text("precious")
    answer = call("prompts", bundle, "export", "-o", tmp_path / "kept", "--site", site)
    assert answer.code == 1
    assert "kept cannot be written: File exists" in answer.err
    assert (tmp_path / "kept").read_text() == "precious"
    answer = call("prompts", bundle, "import", tmp_path / "absent", "--site", site)
    assert answer.code == 1
    assert "absent cannot be read" in answer.err


def test_an_export_that_fails_leaves_nothing(
    call: Call, bundle: Path, site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("promptray.runtime.disk.os.fsync", full)
    (tmp_path / "out").mkdir()
    answer = call("prompts", bundle, "export", "-o", tmp_path / "out" / "all.safetensors", "--site", site)
    assert answer.code == 1
    assert list((tmp_path / "out").iterdir()) == []
    assert "all.safetensors cannot be written: No space left" in answer.err


def test_what_makes_an_added_prompt_less_than_it_looks_is_said(call: Call, bundle: Path, site: Path) -> None:
    long = "There is a fracture of the rib. " * 60
    answer = call("prompts", bundle, "add", "rib fracture", long, "--site", site)
    assert answer.code == 0
    assert len(answer.out) < 200
    (note,) = [line for line in answer.err.splitlines() if line.startswith("Note [prompt-truncated]")]
    assert "rib fracture" in note


def test_a_site_that_does_not_exist_is_refused(call: Call, bundle: Path, tmp_path: Path) -> None:
    answer = call("prompts", bundle, "add", "edema", "There is edema.", "--site", tmp_path / "absent")
    assert answer.code == 1
    assert "[site.not-found]" in answer.err
