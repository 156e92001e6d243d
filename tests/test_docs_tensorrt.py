"""The example of docs/tensorrt.md, with TensorRT-RTX and the tiny CARZero's graphs."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from promptray.runtime.bundle import Bundle
from tests.rtx import needs_rtx

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "tensorrt.md"


@needs_rtx
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


def test_the_time_of_a_build_is_as_measured() -> None:
    result = json.loads((ROOT / "benchmarks/results/engine_build.json").read_text(encoding="utf-8"))
    builder, rounds, used = (result[key] for key in ("builder", "rounds", "processor_seconds"))
    median, least, most = (result["seconds"][key] for key in ("median", "least", "most"))
    cores, load = (result["machine"][key] for key in ("cores", "load_average"))
    said = (
        f"takes {builder} {median:.1f} s ({least:.1f} to {most:.1f} s, {rounds} rounds; "
        f"{used:.1f} s of processor time) on {cores} cores with a load of {load:.1f}\n"
    )
    assert said in DOCUMENT.read_text(encoding="utf-8")
