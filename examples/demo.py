"""The whole chain on the reference model: build a bundle, verify it, score real radiographs, add a prompt.

`make demo` runs this. Every step is a command that you can type yourself; it is printed before it runs. Output goes
to ``demo-output/``: the bundle, scores as JSON, and heat-map overlays at the original resolution.

The model is a small demonstration trained on 144 children's radiographs (reference/MODEL_CARD.md). It is not a
medical device and its scores mean nothing for a patient.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTPUT = Path("demo-output")
BUNDLE, SITE = OUTPUT / "children.bundle", OUTPUT / "site"
SAMPLES = Path("examples") / "samples"


def run(*arguments: str | Path, into: Path | None = None) -> None:
    """Run one promptray command, showing it first; its output goes to the screen or to a file."""
    words = [str(argument) for argument in arguments]
    print("\n$ promptray " + shlex.join(words) + (f" > {into}" if into else ""), flush=True)
    command = [sys.executable, "-m", "promptray", *words]
    if into is None:
        subprocess.run(command, cwd=ROOT, check=True)
    else:
        with (ROOT / into).open("wb") as file:
            subprocess.run(command, cwd=ROOT, check=True, stdout=file)


def main() -> None:
    """Run every step."""
    shutil.rmtree(ROOT / OUTPUT, ignore_errors=True)
    (ROOT / SITE).mkdir(parents=True)
    dicom = sorted(path.relative_to(ROOT) for path in (ROOT / SAMPLES).glob("*.dcm"))
    png = sorted(path.relative_to(ROOT) for path in (ROOT / SAMPLES).glob("*.png"))
    site = ("--site", SITE)

    print("1. checkpoint -> ONNX graphs -> gates -> bundle")
    run("build", Path("reference") / "recipe.yaml", "-o", BUNDLE)
    print("\n2. every hash, the schema, and the golden images on this machine")
    run("verify", BUNDLE, *site)
    print("\n3. real radiographs: DICOM says its modality, a PNG needs it declared")
    run("score", BUNDLE, *dicom, *site, "--heatmaps", OUTPUT / "heatmaps", "--finding", "pneumonia")
    run("score", BUNDLE, *png, *site, "--modality", "CR")
    run("score", BUNDLE, *dicom, *site, "--json", into=OUTPUT / "scores.jsonl")
    print("\n4. a new prompt, encoded on this machine and kept for this site, then scored")
    run("prompts", BUNDLE, "add", "opacity in the left lung", "There is an opacity in the left lung.", *site)
    run("prompts", BUNDLE, "list", *site)
    run("score", BUNDLE, *dicom[:2], *site)
    maps = len(list((ROOT / OUTPUT / "heatmaps").glob("*.png")))
    print(f"\nDone. In {OUTPUT}/: {BUNDLE.name}, scores.jsonl ({len(dicom)} results), heatmaps/ ({maps} overlays).")
    print("Raw logits of a demonstration model: they rank images for one finding and prove the chain, nothing else.")


if __name__ == "__main__":
    main()
