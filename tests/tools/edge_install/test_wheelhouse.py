"""A wheelhouse is made whole or not at all; tests/test_edge_install.py installs from a real one."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.tools.edge_install.conftest import Publish
from tools.edge_install import wheelhouse as module
from tools.edge_install.targets import Target
from tools.edge_install.wheelhouse import main, wheelhouse


@pytest.fixture
def small(publish: Publish, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Publish:
    """Promptray with one requirement, `alpha`, that the test publishes."""
    own = publish("promptray", "alpha", licence="Apache-2.0")
    monkeypatch.setattr(module, "own_requirements", lambda: ["alpha"])
    monkeypatch.setattr(module, "read_pins", lambda target: {"alpha": "1"})
    monkeypatch.setattr(module, "own_wheel", lambda into: own.rename(into / own.name))
    return publish


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr("sys.argv", ["wheelhouse", *map(str, arguments)])
    return main()


def test_requirements_have_the_hash_of_every_wheel(small: Publish, tmp_path: Path) -> None:
    small("alpha", tag="cp312-cp312-win_amd64")
    folder = tmp_path / "new" / "house"
    sha256 = wheelhouse(Target("windows-x86_64", "3.12"), folder)

    names = ["alpha-1-cp312-cp312-win_amd64.whl", "promptray-1-py3-none-any.whl"]
    assert sorted(path.name for path in folder.glob("wheels/*")) == names
    hashes = [hashlib.sha256((folder / "wheels" / name).read_bytes()).hexdigest() for name in names]
    requirements = (folder / "requirements.txt").read_bytes()
    assert requirements.decode().splitlines() == [
        f"alpha==1 --hash=sha256:{hashes[0]}",
        f"promptray==1 --hash=sha256:{hashes[1]}",
    ]
    assert hashlib.sha256(requirements).hexdigest() == sha256
    assert sha256 in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("platform", "words"),
    [
        ("windows-x86_64", [r"promptray-env\Scripts\python -m pip", "py -3.12 -m venv", "Get-FileHash"]),
        ("linux-aarch64", ["promptray-env/bin/python -m pip", "python3.12 -m venv", "sha256sum"]),
    ],
)
def test_its_readme_speaks_the_shell_of_the_platform(
    small: Publish, tmp_path: Path, platform: str, words: list[str]
) -> None:
    small("alpha")
    wheelhouse(Target(platform, "3.12"), tmp_path / "house")
    text = (tmp_path / "house" / "README.md").read_text(encoding="utf-8")
    for word in [*words, "--no-index --find-links wheels --require-hashes", "| alpha | 1 | MIT |"]:
        assert word in text


def test_a_licence_that_is_not_permissive_is_refused(
    small: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small("alpha", licence="GPL-3.0-only")
    assert run(monkeypatch, "linux-x86_64", "3.12", tmp_path / "house") == 1
    assert "no permissive licence: alpha (GPL-3.0-only)" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["index"], "nothing half made is left"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("", "3.12"),
            "PLATFORM is not given: expected one of linux-x86_64, linux-aarch64, windows-x86_64; say",
        ),
        (("linux-x86_64", ""), "PYTHON_VERSION is not given: expected one of 3.10, 3.11, 3.12, 3.13; say"),
        (("macos", "3.12"), "platform 'macos'"),
        (
            ("linux-x86_64", "3.9"),
            "Python '3.9': expected one of 3.10, 3.11, 3.12, 3.13; say, for example",
        ),
    ],
)
def test_an_unknown_target_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, str],
    message: str,
) -> None:
    assert run(monkeypatch, *arguments, tmp_path / "house") == 1
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "linux-x86_64", "3.12", tmp_path) == 1
    assert "exists already; remove it, or name another folder" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    assert run(monkeypatch, "linux-x86_64", "3.12", tmp_path / "file" / "house") == 1
    assert "No wheelhouse was made." in capsys.readouterr().err


@pytest.mark.usefixtures("no_network")
def test_without_a_network_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "linux-aarch64", "3.10", tmp_path / "house") == 1
    said = capsys.readouterr().err
    assert "No wheelhouse was made. linux-aarch64, Python 3.10: looking for wheels failed." in said
    assert "The package index did not answer" in said
    assert list(tmp_path.iterdir()) == []
