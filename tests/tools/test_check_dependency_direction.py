"""tools/check_dependency_direction.py passes this tree, and refuses planted violations."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "check_dependency_direction.py"


def run(root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, str(TOOL), str(root)], capture_output=True, text=True)


def test_this_tree_passes():
    done = run(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("runtime/a.py", "import numpy, json, promptray.runtime.bundle\nfrom .bundle import read"),
        ("runtime/backends/a.py", "from ..errors import PromptRayError\nimport onnxruntime as ort"),
        ("export/a.py", "import torch\nfrom promptray.runtime import Scorer\nfrom ..runtime import bundle"),
        ("calibrate/a.py", "from promptray.export import families\nimport sklearn.metrics"),
        ("promptray/__init__.py", "from promptray.runtime import Scorer\nfrom .runtime import Scorer as S"),
        ("promptray/__main__.py", "from promptray.cli import main"),
        ("promptray/cli/a.py", "from promptray import export, calibrate\nfrom ..calibrate import gates"),
        ("tests/runtime/test_a.py", "import torch, cv2\nfrom promptray.export import families"),
    ],
)
def test_allowed_imports(tmp_path: Path, path: str, code: str):
    target = tmp_path / path
    target.parent.mkdir(parents=True)
    target.write_text(code)
    done = run(tmp_path)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("path", "code", "message"),
    [
        ("runtime/a.py", "import torch", "promptray.runtime must not import torch"),
        ("runtime/a.py", "def f():\n    from torch import nn", "runtime/a.py:2: promptray.runtime must not"),
        ("runtime/a.py", "import importlib\nimportlib.import_module('onnx')", "must not import onnx"),
        ("runtime/a.py", "__import__('yaml')", "must not import yaml"),
        ("runtime/a.py", "import pandas", "must not import pandas"),
        ("runtime/a.py", "import rich", "must not import rich"),
        ("runtime/a.py", "from promptray import Scorer", "promptray.runtime must not import promptray"),
        ("runtime/bundle/a.py", "from ...export import onnx", "must not import promptray.export"),
        ("runtime/__init__.py", "from .. import calibrate", "must not import promptray.calibrate"),
        ("export/a.py", "from promptray import calibrate", "must not import promptray.calibrate"),
        ("export/a.py", "import promptray.cli.build", "must not import promptray.cli.build"),
        ("calibrate/a.py", "from ..cli import main", "must not import promptray.cli"),
        ("promptray/__init__.py", "from promptray import export", "must not import promptray.export"),
        ("promptray/__init__.py", "from .cli import main", "promptray must not import promptray.cli"),
        ("promptray/__init__.py", "import torch", "must not import torch"),
        ("tests/test_a.py", "from runtime.bundle import read", "installed as promptray.runtime.bundle"),
    ],
)
def test_planted_violation_is_refused(tmp_path: Path, path: str, code: str, message: str):
    target = tmp_path / path
    target.parent.mkdir(parents=True)
    target.write_text(code)
    done = run(tmp_path)
    assert done.returncode == 1
    assert message in done.stdout
