"""What is in the folders is in the sdist, and in the wheel built from it, under the installed names."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from tools.edge_install.own_wheel import build, copy_sources

FOLDERS = {
    "promptray": "promptray",
    "runtime": "promptray/runtime",
    "export": "promptray/export",
    "calibrate": "promptray/calibrate",
}


@pytest.mark.slow
def test_every_file_of_the_packages_is_in_the_wheel_built_from_the_sdist(tmp_path: Path):
    source = copy_sources(tmp_path / "source")
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
