"""tools/check_types.py sees the packages under the names they install as."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_planted_type_error_is_found_across_the_folders(tmp_path: Path):
    for folder in ("promptray", "runtime", "export", "calibrate", "benchmarks", "reference", "tools"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "__init__.py").touch()
    for name in ("pyproject.toml", "tools/check_types.py"):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "runtime/answer.py").write_text("def answer() -> int:\n    return 42\n")
    caller = tmp_path / "export/caller.py"
    command = [sys.executable, "tools/check_types.py"]

    caller.write_text("from promptray.runtime.answer import answer\n\nnumber: int = answer()\n")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout

    caller.write_text("from promptray.runtime.answer import answer\n\nword: str = answer()\n")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "export/caller.py:3: error: Incompatible types" in done.stdout

    # A benchmark is run too rarely for its faults to be met in time.
    caller.rename(tmp_path / "benchmarks/timed.py")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "benchmarks/timed.py:3: error: Incompatible types" in done.stdout
