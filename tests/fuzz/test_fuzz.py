"""The fuzzing harness runs, is able to fail, and past findings stay mended.

The short run here has a fixed number of inputs and a fixed seed; ``make fuzz`` runs for an hour or longer.
"""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from promptray import PromptRayError
from tests.fuzz.targets import TARGETS

#: Inputs that once were findings, in a folder for each target: any bytes, named after what they did.
FINDINGS = Path(__file__).parent / "findings"
RUNS = {"dicom": 2000, "png": 3000, "jpeg": 3000, "bundle": 800, "recipe": 200}

needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None,
    reason="fuzzing not run: atheris has no wheel for this machine (Linux x86-64, CPython >= 3.11)",
)


#: A process inherits the peak memory of the one that forks it; libFuzzer counts it, and a runner's is large.
SMALL_PARENT = "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)"


def fuzz(*arguments: object, code: str = "") -> subprocess.CompletedProcess[str]:
    """Run the harness as ``make fuzz`` does, after `code`."""
    program = f"import sys; from tests.fuzz.__main__ import main\n{code}\nmain(sys.argv[1:])"
    command = [sys.executable, "-c", SMALL_PARENT, sys.executable, "-c", program, *map(str, arguments)]
    root = Path(__file__).parents[2]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=600, cwd=root)


@pytest.mark.parametrize("target", TARGETS)
def test_seeds_and_past_findings(target: str) -> None:
    seeds = TARGETS[target].seeds()
    assert seeds
    past = [path.read_bytes() for path in sorted((FINDINGS / target).glob("*"))]
    for content in [*seeds.values(), *past, b"", b"\0"]:
        TARGETS[target].run(content)


def test_seeds_of_bundles_are_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A seed that is refused would leave all that follows the refusal untried."""

    def refused(error: PromptRayError) -> None:
        raise error

    monkeypatch.setattr("tests.fuzz.targets._require_registered", refused)
    seeds = TARGETS["bundle"].seeds()
    assert {name.split("-")[0] for name in seeds} == {"small", "dual"}
    for content in seeds.values():
        TARGETS["bundle"].run(content)


@needs_atheris
@pytest.mark.parametrize("target", TARGETS)
def test_a_short_run_finds_nothing(target: str, tmp_path: Path) -> None:
    done = fuzz(target, "--runs", RUNS[target], "--seed", 1, "--folder", tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Done {RUNS[target]} runs" in done.stderr
    assert not list((tmp_path / target / "findings").iterdir())


PLANTED = """
from promptray.runtime import policy
honest = policy.looks_inverted
def careless(grey):
    if grey.mean() < 60: {bug}
    return honest(grey)
policy.looks_inverted = careless
"""


@needs_atheris
@pytest.mark.parametrize(
    ("bug", "said"),
    [
        ("raise IndexError('planted')", "IndexError: planted"),
        ("b'x' * 2_000_000_000", "out-of-memory"),
    ],
    ids=["exception", "memory"],
)
def test_a_planted_bug_is_found_and_written_down(bug: str, said: str, tmp_path: Path) -> None:
    done = fuzz("dicom", "--runs", 20_000, "--seed", 1, "--folder", tmp_path, code=PLANTED.format(bug=bug))
    assert done.returncode != 0
    assert said in done.stdout + done.stderr
    (finding,) = (tmp_path / "dicom" / "findings").iterdir()
    assert str(finding) in done.stderr


def test_where_atheris_has_no_wheel_the_run_says_so(tmp_path: Path) -> None:
    done = fuzz("dicom", "--runs", 1, "--folder", tmp_path, code="sys.modules['atheris'] = None")
    assert done.returncode == 0
    assert "not run" in done.stdout
