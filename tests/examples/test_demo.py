"""`make demo`, run as a newcomer runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]


def test_the_demo_runs_the_whole_chain(tmp_path: Path) -> None:
    output = tmp_path / "demo"
    command = [sys.executable, "examples/demo.py", "--output", str(output)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "auto: the first of the backends this bundle was gated on" in done.stdout
    assert "16 golden images: preprocessing equal in every pixel" in done.stdout

    documents = []
    for kind, suffix in (("dicom", ".dcm"), ("png", ".png")):
        samples = sorted((ROOT / "examples" / "samples").glob(f"*{suffix}"))
        lines = (output / f"scores-{kind}.jsonl").read_text(encoding="utf-8").splitlines()
        scored = [json.loads(line) for line in lines]
        assert [document["source"]["name"] for document in scored] == [path.name for path in samples]
        assert {document["source"]["kind"] for document in scored} == {kind}
        documents += scored
    assert len(documents) == 24

    for document in documents:
        overlay = output / "heatmaps" / f"{document['source']['name']}.pneumonia.png"
        with Image.open(overlay) as image:
            assert image.size == (document["source"]["columns"], document["source"]["rows"])

    last = done.stdout[done.stdout.rindex("promptray score") :]
    assert "opacity in the left lung" in last, "the added prompt is scored in the end"
