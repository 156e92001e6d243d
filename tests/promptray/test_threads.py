"""Threads: every command that decodes images says how many, and takes no more than there can be."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from promptray.runtime.cores import DECODE_THREADS, host_threads
from tests.promptray.command_line import Call

WITH_THREADS = [
    ("score", "x.bundle", "film.dcm"),
    ("exam", "x.bundle", "film.dcm"),
    ("bench", "x.bundle", "film.dcm"),
    ("verify", "x.bundle"),
    ("accept", "x.bundle", "--images", ".", "--sla", "p50<1s", "-o", "report"),
    ("evaluate", "x.bundle", "--labels", "labels.csv", "--images", "."),
    ("compare", "x.bundle", "y.bundle", "--images", "."),
    ("calibrate", "x.bundle", "labels.csv", "--images", "."),
    ("gate-decode", "x.bundle", "--images", "."),
]
WITHOUT = [
    ("check", "x.bundle", "film.dcm", "--report", "report.txt"),
    ("ground", "x.bundle", "film.dcm", "--rows", "1:2", "--columns", "1:2"),
    ("tune", "x.bundle", "--images", "film.dcm"),
    ("engine", "x.bundle", "--images", "."),
    ("build", "recipe.yaml", "-o", "x.bundle"),
    ("sensitivity", "recipe.yaml"),
    ("adapt", "recipe.yaml", "--images", ".", "--labels", "labels.csv", "--column", "c", "-o", "adapted"),
]


@pytest.fixture(autouse=True)
def _nothing_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("command", WITH_THREADS, ids=lambda command: command[0])
def test_jpeg_2000_is_decoded_with_the_threads_of_the_command(call: Call, command: tuple[str, ...]) -> None:
    assert call(*command, "--threads", 3).code == 1  # the bundle is not there, which is found out later
    assert os.environ[DECODE_THREADS] == "3"
    assert call(*command, "--threads", 2).code == 1
    assert os.environ[DECODE_THREADS] == "3", "whoever set it knows better"


@pytest.mark.parametrize("command", WITHOUT, ids=lambda command: command[0])
def test_a_command_that_takes_every_core_decodes_with_them(call: Call, command: tuple[str, ...]) -> None:
    assert call(*command).code == 1
    assert os.environ[DECODE_THREADS] == str(host_threads(None))


def test_a_batch_leaves_it_to_its_workers(call: Call) -> None:
    assert call("batch", "x.bundle", "film.dcm", "-o", "scores", "--threads", 1).code == 1
    assert DECODE_THREADS not in os.environ


@pytest.mark.parametrize("command", [*WITH_THREADS, ("batch", "x.bundle", "film.dcm", "-o", "scores")])
def test_more_threads_than_can_be_are_wrong_usage(call: Call, command: tuple[str, ...]) -> None:
    answer = call(*command, "--threads", 100_000)
    assert answer.code == 2
    assert "threads must be 1 to" in answer.err
