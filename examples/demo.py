"""The whole chain on the reference model: build a bundle, verify it, score real radiographs, add a prompt.

`make demo` runs this. Every step is a command that you can type yourself; it is printed before it runs.
Output goes to ``demo-output/``: the bundle, scores as JSON, and heat maps at the original resolution.

The model is a small demonstration trained on 144 children's radiographs (reference/MODEL_CARD.md). It is not
a medical device and its scores mean nothing for a patient.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
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
    parser = argparse.ArgumentParser(description="Build, verify, score, add a prompt, score again.")
    parser.add_argument("--output", type=Path, default=Path("demo-output"), help="replaced if it exists")
    output = parser.parse_args().output
    bundle, site_folder, heatmaps = output / "children.bundle", output / "site", output / "heatmaps"
    shutil.rmtree(ROOT / output, ignore_errors=True)
    (ROOT / site_folder).mkdir(parents=True)
    dicom = sorted(path.relative_to(ROOT) for path in (ROOT / SAMPLES).glob("*.dcm"))
    png = sorted(path.relative_to(ROOT) for path in (ROOT / SAMPLES).glob("*.png"))
    site = ("--site", site_folder)

    print("1. checkpoint -> ONNX graphs -> gates -> bundle")
    run("build", Path("reference") / "recipe.yaml", "-o", bundle)
    print("\n2. every hash, the schema, and the golden images on this machine")
    run("verify", bundle, *site)
    print("\n3. real radiographs: DICOM says its modality, a PNG needs it declared")
    overlays = ("--heatmaps", heatmaps, "--finding", "pneumonia")
    run("score", bundle, *dicom, *site, *overlays)
    run("score", bundle, *png, *site, "--modality", "CR", *overlays)
    run("score", bundle, *dicom, *site, "--json", into=output / "scores-dicom.jsonl")
    run("score", bundle, *png, *site, "--modality", "CR", "--json", into=output / "scores-png.jsonl")
    print("\n4. a new prompt, encoded on this machine and kept for this site, then scored")
    run("prompts", bundle, "add", "opacity in the left lung", "There is an opacity in the left lung.", *site)
    run("prompts", bundle, "list", *site)
    run("score", bundle, *dicom[:2], *site)
    maps = len(list((ROOT / heatmaps).glob("*.png")))
    print(f"\nDone. In {output}: {bundle.name}, scores-dicom.jsonl, scores-png.jsonl, {maps} heat maps.")
    print("Raw logits of a demonstration model: they rank images for one finding, and prove no more.")


if __name__ == "__main__":
    main()
