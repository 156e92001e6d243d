"""What is in the folders is in the sdist, and in the wheel built from it, under the installed names."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "promptray": "promptray",
    "runtime": "promptray/runtime",
    "export": "promptray/export",
    "calibrate": "promptray/calibrate",
}


def build(kind: str, source: Path, target: Path) -> Path:
    """Call setuptools as pip and other front ends do, without asking an index for it."""
    code = f"from setuptools import build_meta; print(build_meta.build_{kind}({str(target)!r}))"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=source, check=True, capture_output=True, text=True)
    return target / done.stdout.splitlines()[-1]


@pytest.mark.slow
def test_every_file_of_the_packages_is_in_the_wheel_built_from_the_sdist(tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, source / folder, ignore=shutil.ignore_patterns("__pycache__"))
    planted = source / "runtime" / "planted" / "deep"
    planted.mkdir(parents=True)
    for path in (planted.parent / "__init__.py", planted / "__init__.py", planted / "schema.json"):
        path.touch()
    expected = {
        f"{installed}/{path.relative_to(source / folder).as_posix()}"
        for folder, installed in FOLDERS.items()
        for path in (source / folder).rglob("*")
        if path.is_file()
    }

    sdist = build("sdist", source, tmp_path)
    subprocess.run(["tar", "-xzf", sdist, "-C", tmp_path], check=True)
    wheel = build("wheel", tmp_path / "promptray-0.1.0", tmp_path)
    found = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}

    assert found == expected
    assert "promptray/runtime/planted/deep/schema.json" in found
