"""tools/check_licences.py passes this environment, and refuses planted licences."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "check_licences.py"


def run(site: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = os.environ | ({"PYTHONPATH": str(site)} if site else {})
    return subprocess.run([sys.executable, str(TOOL)], capture_output=True, text=True, env=environment)


def plant(site: Path, name: str, *lines: str) -> None:
    """Write the metadata of an installed distribution, found before the real ones."""
    folder = site / f"{name}-0.1.0.dist-info"
    folder.mkdir()
    header = ["Metadata-Version: 2.4", f"Name: {name}", "Version: 0.1.0"]
    (folder / "METADATA").write_text("\n".join([*header, *lines]) + "\n")


def test_the_edge_install_is_permissive():
    done = run()
    assert done.returncode == 0, done.stdout
    assert "onnxruntime" in done.stdout
    assert "torch" not in done.stdout


@pytest.mark.parametrize(
    "lines",
    [
        ["License-Expression: GPL-3.0-or-later"],
        ["License-Expression: MIT AND AGPL-3.0-only"],
        ["License: GNU GPL 3"],
        ["Classifier: License :: OSI Approved :: GNU General Public License v3 (GPLv3)"],
        ["License: MIT", "Classifier: License :: OSI Approved :: GNU Affero General Public License v3"],
        [],
    ],
)
def test_a_licence_outside_the_list_is_refused(tmp_path: Path, lines: list[str]):
    plant(tmp_path, "promptray", "License-Expression: Apache-2.0", "Requires-Dist: planted-middle[more]")
    middle = ["License: MIT", 'Requires-Dist: planted-leaf; extra == "more"', "Provides-Extra: more"]
    plant(tmp_path, "planted_middle", *middle)
    plant(tmp_path, "planted_leaf", *lines)
    done = run(tmp_path)
    assert done.returncode == 1, done.stdout
    refused = [line.split()[0] for line in done.stdout.splitlines() if line.endswith("REFUSED")]
    assert refused == ["planted_leaf"]


@pytest.mark.parametrize("expression", ["MIT OR GPL-3.0-only", "(MIT OR GPL-2.0-only) AND BSD-3-Clause"])
def test_a_permissive_choice_is_accepted(tmp_path: Path, expression: str):
    plant(tmp_path, "promptray", f"License-Expression: {expression}")
    assert run(tmp_path).returncode == 0


def test_a_requirement_that_is_not_installed_is_refused(tmp_path: Path):
    plant(tmp_path, "promptray", "License-Expression: MIT", "Requires-Dist: planted-missing")
    done = run(tmp_path)
    assert done.returncode == 1
    assert "planted-missing is required" in done.stdout


@pytest.mark.parametrize(
    ("lines", "accepted"),
    [
        (["Classifier: License :: Other/Proprietary License"], True),
        (["License: GNU GPL 3"], False),
        ([], False),
    ],
)
def test_extras_for_engines_may_also_be_the_vendors_own(tmp_path: Path, lines: list[str], accepted: bool):
    extra = ['Requires-Dist: planted-compiler; extra == "rtx"', "Provides-Extra: rtx"]
    plant(tmp_path, "promptray", "License-Expression: Apache-2.0", *extra)
    plant(tmp_path, "planted_compiler", *lines)
    done = run(tmp_path)
    assert (done.returncode == 0) is accepted
    assert "planted_compiler" in done.stdout


def test_openvino_and_what_it_brings_is_permissive_and_must_be(tmp_path: Path):
    assert "openvino-telemetry" in run().stdout
    extra = ['Requires-Dist: planted-leaf; extra == "openvino"', "Provides-Extra: openvino"]
    plant(tmp_path, "promptray", "License-Expression: Apache-2.0", *extra)
    plant(tmp_path, "planted_leaf", "Classifier: License :: Other/Proprietary License")
    assert run(tmp_path).returncode == 1


def test_what_is_not_installed_is_said(tmp_path: Path):
    extra = ['Requires-Dist: not-there-at-all; extra == "tensorrt"', "Provides-Extra: tensorrt"]
    plant(tmp_path, "promptray", "License-Expression: Apache-2.0", *extra)
    done = run(tmp_path)
    assert done.returncode == 0
    assert "not looked at: not-there-at-all" in done.stdout


def test_what_an_extra_brings_by_another_one_counts(tmp_path: Path):
    extra = ['Requires-Dist: planted-compiler; extra == "rtx"', "Provides-Extra: rtx"]
    plant(tmp_path, "promptray", "License-Expression: Apache-2.0", *extra)
    plant(tmp_path, "planted_compiler", "License-Expression: MIT", "Requires-Dist: planted-leaf")
    plant(tmp_path, "planted_leaf", "License-Expression: GPL-3.0-or-later")
    done = run(tmp_path)
    assert done.returncode == 1
    refused = [line.split()[0] for line in done.stdout.splitlines() if line.endswith("REFUSED")]
    assert refused == ["planted_leaf"]
