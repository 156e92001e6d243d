"""A way to call the command line, and something to call it on."""

from __future__ import annotations

from pathlib import Path

import pytest

from promptray.cli import run
from promptray.runtime.cores import DECODE_THREADS
from tests.promptray.command_line import Answer, Call


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Call:
    """``call("score", bundle, image)`` runs a command in this process, which nobody told how to decode."""
    monkeypatch.setenv(DECODE_THREADS, "")  # so that what commands set does not outlive the test
    monkeypatch.delenv(DECODE_THREADS)

    def run_command(*arguments: object) -> Answer:
        code = run([str(argument) for argument in arguments])
        return Answer(code, *capsys.readouterr())

    return run_command


@pytest.fixture
def bundle(carzero_bundle: Path) -> Path:
    return carzero_bundle


@pytest.fixture
def image(carzero_checkpoint: Path) -> Path:
    return carzero_checkpoint / "images" / "tall.png"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    folder = tmp_path / "site"
    folder.mkdir()
    return folder
