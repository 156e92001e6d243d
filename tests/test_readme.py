"""The README's program runs as printed, on the bundle that `make demo` builds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_program_runs(
    reference_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (program,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    assert len(program.strip().splitlines()) <= 14
    monkeypatch.chdir(ROOT)
    exec(compile(program.replace("demo-output/children.bundle", str(reference_bundle)), "README", "exec"))
    printed = capsys.readouterr().out.split("\n")
    assert float(printed[0])
    assert re.fullmatch(r"\(\d+, \d+\)", printed[1])
    assert printed[2] == "broken.dcm image.not-found"


def test_every_command_it_names_exists() -> None:
    from promptray.cli import cli

    named = set(re.findall(r"^    promptray ([\w-]+)", README, flags=re.MULTILINE))
    assert named == set(cli.list_commands(None))  # type: ignore[arg-type]


def test_every_file_it_links_to_exists() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) > 5
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []
