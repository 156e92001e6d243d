"""The command line as a process of its own: pipes, names and consoles as they are in the wild."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest


def promptray(*arguments: object, **environment: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "promptray", *map(os.fsencode, map(str, arguments))]
    return subprocess.run(command, capture_output=True, timeout=120, env={**os.environ, **environment})


def test_the_module_and_the_script_are_the_same_program() -> None:
    assert promptray("--version").stdout.startswith(b"promptray, version ")
    script = Path(sys.executable).with_name("promptray")
    if script.exists():
        assert (
            subprocess.run([script, "--version"], capture_output=True).stdout == promptray("--version").stdout
        )


def test_exit_codes_reach_the_shell(tmp_path: Path) -> None:
    assert promptray("doctor", "--json").returncode == 0
    assert promptray("inspect", tmp_path / "absent").returncode == 1
    assert promptray("nonsense").returncode == 2


@pytest.mark.parametrize("options", [[], ["--json"]])
def test_a_reader_that_goes_away_is_no_fault(carzero_bundle: Path, options: list[str]) -> None:
    command = [sys.executable, "-m", "promptray", "inspect", str(carzero_bundle), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_nothing_in_a_folder_is_passed_over(
    carzero_bundle: Path, carzero_checkpoint: Path, tmp_path: Path
) -> None:
    """Links to nowhere, linked folders and pipes get a refusal each, not silence."""
    folder = tmp_path / "studies"
    (folder / "sub").mkdir(parents=True)
    images = carzero_checkpoint / "images"
    shutil.copy(images / "wide.png", folder / "a.png")
    shutil.copy(images / "wide.png", folder / "sub" / "b.png")
    (folder / "lost.dcm").symlink_to(tmp_path / "gone.dcm")
    (folder / "linked").symlink_to(images)
    os.mkfifo(folder / "pipe")
    done = promptray("score", carzero_bundle, folder, "--modality", "DX", "--no-site", "--json")
    assert done.returncode == 1
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    assert sum(document["schema"] == "promptray-result" for document in documents) == 2
    refused = {d["file"]: d["error"]["code"] for d in documents if d["schema"] == "promptray-refusal"}
    assert refused == dict.fromkeys(("linked", "lost.dcm", "pipe"), "image.not-found")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no disk here that is always full")
@pytest.mark.parametrize("arguments", [["doctor", "--json"], ["--help"]])
def test_a_full_disk_is_the_systems_refusal(arguments: list[str]) -> None:
    with open("/dev/full", "wb") as full:
        command = [sys.executable, "-m", "promptray", *arguments]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, timeout=120)
    assert done.returncode == 1
    assert b"No space left" in done.stderr
    assert b"Internal fault" not in done.stderr


def test_a_closed_stdout_is_no_success(carzero_bundle: Path) -> None:
    command = f"{sys.executable} -m promptray inspect {carzero_bundle} --no-site >&-"
    done = subprocess.run(["sh", "-c", command], stderr=subprocess.PIPE, timeout=120)
    assert done.returncode == 1
    assert b"standard output is closed" in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_every_console_can_show_every_finding(carzero_bundle: Path, tmp_path: Path, encoding: str) -> None:
    site = tmp_path / "site"
    site.mkdir()
    key = "плеврит 胸水 😀"
    there = {"PYTHONIOENCODING": encoding}
    arguments = (carzero_bundle, "add", key, "There is effusion.", "--site", site)
    assert promptray("prompts", *arguments, **there).returncode == 0
    listed = promptray("prompts", carzero_bundle, "list", "--site", site, "--json", **there)
    assert json.loads(listed.stdout)["findings"][-1]["key"] == key
    assert promptray("prompts", carzero_bundle, "list", "--site", site, **there).returncode == 0


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no such names")
def test_a_file_name_that_is_no_text_is_scored_all_the_same(
    carzero_bundle: Path, carzero_checkpoint: Path, tmp_path: Path
) -> None:
    name = os.fsdecode(b"film-\xff.png")
    shutil.copy(carzero_checkpoint / "images" / "half.png", tmp_path / name)
    arguments = ("score", carzero_bundle, tmp_path / name, "--modality", "DX")
    done = promptray(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["source"]["name"] == name
    table = promptray(*arguments)
    assert table.returncode == 0, table.stderr
    assert b"film-" in table.stdout
