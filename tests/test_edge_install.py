"""The edge install alone in an empty environment: it scores as here, and is small and permissive.

For the oldest and the newest Python the wheel is installed from the index, for this Python from a wheelhouse
with no index, as in a hospital without a network.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pytest

from tools.check_licences import canonical, edge_install
from tools.edge_install.environment import MEGABYTE, Environment
from tools.edge_install.interpreters import find_interpreter
from tools.edge_install.own_wheel import own_wheel
from tools.edge_install.targets import PYTHONS, target
from tools.edge_install.wheelhouse import wheelhouse

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "examples" / "samples"
HERE = f"{sys.version_info.major}.{sys.version_info.minor}"
# Taken before a fixture moves the home folder: pip finds its configuration and its cache there.
OUTSIDE = dict(os.environ)
# Nothing of this machine's pip may help an installation that is to work without a network.
NO_NETWORK = {name: value for name, value in OUTSIDE.items() if not name.startswith("PIP_")}
NO_NETWORK |= {"PIP_CONFIG_FILE": os.devnull, "PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0"}

OFFLINE = "offline"
# Who may bring a file over 5 MB. A new name here is a decision: these bytes go to every hospital.
LARGE = {"hf-xet", "numpy", "onnxruntime", "pydicom", "pyjpegls", "pylibjpeg-openjpeg", "tokenizers"}
# Imported when they are needed, so that a program that embeds the scorer starts at once.
LATE = "click ftfy google httpx2 huggingface_hub hf_xet onnxruntime pydicom sympy tabulate tqdm yaml".split()

Scores = dict[str, dict[str, float]]


def scores(promptray: list[str | Path], bundle: Path, folder: Path) -> Scores:
    """Logits of every sample, DICOM and PNG, by file and finding, as a command line prints them."""
    found = {}
    for kind in (["*.dcm"], ["*.png", "--modality", "CR"]):
        images = sorted(SAMPLES.glob(kind[0]))
        command = [*promptray, "score", bundle, *images, *kind[1:], "--no-site", "--json"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        for line in map(json.loads, done.stdout.splitlines()):
            logits = {each["key"]: each["score"]["logit"] for each in line["findings"]}
            found[line["source"]["name"]] = logits
    return found


@pytest.fixture(scope="module")
def scores_here(reference_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Scores:
    command: list[str | Path] = [sys.executable, "-I", "-m", "promptray"]
    found = scores(command, reference_bundle, tmp_path_factory.mktemp("here"))
    assert len(found) == 24
    assert all(len(logits) >= 3 for logits in found.values())
    return found


@contextmanager
def variables(wanted: Mapping[str, str]) -> Iterator[None]:
    """Run with these environment variables and no other."""
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ.keys() - wanted.keys():
            patch.delenv(name)
        for name, value in wanted.items():
            patch.setenv(name, value)
        yield


@pytest.fixture(scope="module")
def offline_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A wheelhouse for this machine and this Python."""
    machine = {"AMD64": "x86_64"}.get(platform.machine(), platform.machine())
    folder = tmp_path_factory.mktemp("offline") / "wheelhouse"
    with variables(OUTSIDE):
        wheelhouse(target(f"{platform.system().lower()}-{machine}", HERE), folder)
    yield folder
    shutil.rmtree(folder)


def install_offline(environment: Environment, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the command that the wheelhouse's README gives, in an environment that is made already."""
    lines = [line.strip() for line in (folder / "README.md").read_text(encoding="utf-8").splitlines()]
    (command,) = [shlex.split(line) for line in lines if " -m pip install " in line]
    assert "--no-index" in command
    assert "--require-hashes" in command
    command[0] = str(environment.python)
    with variables(NO_NETWORK):
        return subprocess.run(command, cwd=folder, capture_output=True, text=True)


@pytest.fixture(scope="module", params=[PYTHONS[0], PYTHONS[-1], OFFLINE])
def installed(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Environment]:
    """An environment with promptray's wheel and what that needs."""
    folder = tmp_path_factory.mktemp("edge")
    interpreter = find_interpreter(HERE if request.param == OFFLINE else request.param, OUTSIDE)
    if interpreter is None:
        pytest.skip(f"not run: no Python {request.param} here")
    environment = Environment.create(interpreter, folder / "environment")
    if request.param == OFFLINE:
        done = install_offline(environment, request.getfixturevalue("offline_folder"))
        assert done.returncode == 0, done.stdout + done.stderr
    else:
        with variables(OUTSIDE):
            environment.install(own_wheel(folder))
    yield environment
    shutil.rmtree(folder)


def test_scores_of_dicom_and_png_are_those_of_this_environment(
    installed: Environment, reference_bundle: Path, scores_here: Scores, tmp_path: Path
) -> None:
    found = scores([installed.programs / "promptray"], reference_bundle, tmp_path)
    versions = {each.name: each.version for each in installed.weights()}
    same = all(versions[name] == version(name) for name in ("numpy", "onnxruntime"))
    bound = 0.0 if same else 2e-5
    assert found == {name: pytest.approx(logits, abs=bound, rel=0) for name, logits in scores_here.items()}


def test_a_bundle_verifies(installed: Environment, reference_bundle: Path) -> None:
    command = [installed.programs / "promptray", "verify", reference_bundle, "--no-site"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_is_small(installed: Environment) -> None:
    assert 100 < installed.size() / MEGABYTE <= 300
    large = installed.large_files()
    for path, (name, size) in large.items():
        print(f"{size / MEGABYTE:6.1f} MB  {name}: {path}")
    assert "onnxruntime" in {name for name, _ in large.values()}
    assert {name for name, _ in large.values()} <= LARGE


def test_it_holds_what_promptray_requires_and_no_more(installed: Environment) -> None:
    names = {each.name for each in installed.weights()}
    assert {"promptray", "onnxruntime", "pydicom"} <= names
    assert not names & {"torch", "transformers", "timm", "onnx", "scipy", "opencv-python-headless"}
    if installed_python(installed) == HERE:
        assert names == {canonical(each.name) for each in edge_install("promptray")}


def test_its_licences_are_permissive(installed: Environment) -> None:
    command = [installed.python, "-I", ROOT / "tools" / "check_licences.py"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    edge, _, extras = done.stdout.partition("\n\n")
    assert len(edge.splitlines()) == len(installed.weights()) + 1, "all that is installed was checked"
    assert extras.startswith("0 more in the extras")


def test_importing_the_scorer_loads_nothing_that_can_wait(installed: Environment) -> None:
    code = "import sys; from promptray import Scorer; print(*sys.modules)"
    done = subprocess.run([installed.python, "-I", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "promptray.runtime.scorer" in loaded
    assert loaded.isdisjoint(LATE)


def installed_python(environment: Environment) -> str:
    code = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([environment.python, "-c", code], capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    interpreter = find_interpreter(HERE, OUTSIDE)
    assert interpreter is not None
    return Environment.create(interpreter, tmp_path_factory.mktemp("empty") / "environment")


@pytest.mark.parametrize("what", ["a changed byte", "another file of the same name"])
def test_a_wheelhouse_that_was_tampered_with_installs_nothing(
    offline_folder: Path, empty: Environment, tmp_path: Path, what: str
) -> None:
    folder = tmp_path / "wheelhouse"
    shutil.copytree(offline_folder, folder, copy_function=os.link)
    (wheel,) = folder.glob("wheels/filelock-*.whl")
    content = bytearray(wheel.read_bytes())
    content[len(content) // 2] ^= 1
    (other,) = folder.glob("wheels/h11-*.whl")
    wheel.unlink()  # it is a link to the good one, which must stay as it is
    wheel.write_bytes(content if what == "a changed byte" else other.read_bytes())

    done = install_offline(empty, folder)
    assert done.returncode == 1
    assert "DO NOT MATCH THE HASHES" in done.stderr
    assert empty.weights() == []
