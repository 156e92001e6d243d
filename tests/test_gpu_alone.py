"""Tests that need a GPU do not pass where there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def test_skipping_all_is_a_failure(tmp_path: Path) -> None:
    given = Path(__file__).parent / "gpu/conftest.py"
    (tmp_path / "conftest.py").write_text(given.read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n", encoding="utf-8")
    tests = "import pytest\n\n@pytest.mark.gpu\ndef test_engine():\n    pytest.skip('no GPU')\n"
    for more, code in (("", 1), ("\n@pytest.mark.gpu\ndef test_other(): pass\n", 0)):
        (tmp_path / "test_engines.py").write_text(tests + more, encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-p", "no:cacheprovider", "."]
        done = subprocess.run(
            command, cwd=tmp_path, capture_output=True, text=True, env={**os.environ}, check=False
        )
        assert done.returncode == code, done.stdout
        assert ("no test ran on a GPU" in done.stdout) is bool(code)
