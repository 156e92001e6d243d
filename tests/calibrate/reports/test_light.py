"""Reports are read and checked on an edge box: nothing that trains is needed."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("torch", "sklearn", "transformers", "timm", "onnx", "yaml", "promptray.export")


def test_check_and_align_load_no_heavy_library() -> None:
    code = (
        "import sys, promptray.cli.check, promptray.cli.align, promptray.cli.packs; "
        "from promptray.calibrate.reports import extract; extract('No effusion.'); "
        f"print(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_scoring_loads_no_endpoint() -> None:
    """A language model is never asked when an image is scored: what could ask is not even loaded."""
    code = (
        "import sys, promptray.cli.score, promptray.cli.check, promptray.cli.align; "
        "print('promptray.calibrate.reports.endpoint' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
