"""The example of docs/tensorrt.md, with TensorRT-RTX and the tiny CARZero's graphs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from promptray.runtime.bundle import Bundle

DOCUMENT = Path(__file__).parents[1] / "docs" / "tensorrt.md"


def test_the_example_builds_an_engine(carzero_bundle: Path) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    bundle = Bundle.open(carzero_bundle)
    facts = bundle.manifest.graph("image")
    assert facts is not None
    known: dict[str, Any] = {
        "manifest": bundle.manifest,
        "facts": facts,
        "graph": bundle.read(facts.file),
    }
    exec(compile(example, str(DOCUMENT), "exec"), known)
    assert known["built"].targets == ("8.6", "8.9")
