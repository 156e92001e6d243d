"""Which layers of the reference model int8 hurts, and the fastest mix that a search finds.

    python -m benchmarks.sensitivity --data DATA -o benchmarks/results/sensitivity.json

Image graph and head of the reference model in int8-qdq: every group of layers is quantised alone and the
radiographs of a quarter of the patients are scored, which ranges are taken from, too. Then the build searches
on the radiographs of another quarter, and the gate is held on those of the rest. The plot is written beside
the result, as SVG. The model was trained on part of these images: what is measured is agreement with fp32.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.quantised_bundles import INT8, SOURCES, reference_recipe, said, write_tables
from benchmarks.timing import machine, save
from promptray.calibrate.gates.report import GateReport
from promptray.calibrate.pipeline import build
from promptray.calibrate.pipeline.sensitivity import rank_layers
from promptray.calibrate.quantise.search_report import SearchReport, trials_table
from promptray.calibrate.quantise.sensitivity_report import bars
from promptray.runtime.bundle.parity import read_parity
from promptray.runtime.errors import BuildError
from promptray.runtime.machine_class import machine_class

#: Quarters of the patients.
PARTS = {"calibration": {0}, "search": {1}, "gate": {2, 3}}


def write_recipe(data: Path, folder: Path) -> Path:
    """Write the recipe with its tables."""
    write_tables(data, folder, PARTS)
    films = {"images": str((data / "cxr").resolve()), "source": SOURCES}
    content = {
        **reference_recipe(),
        "quantise": {
            "image": INT8,
            "head": INT8,
            "calibration": {**films, "labels": "calibration.csv"},
            "search": {**films, "labels": "search.csv"},
        },
        "gate": {**films, "labels": "gate.csv"},
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def search(recipe: Path, folder: Path, cache: Path, show: Any) -> dict[str, Any]:
    """Build by the recipe; return the trials, and what the gate said of the mix that was chosen."""
    output, notes, refusal = folder / "searched.bundle", [], None
    reports = output / "gates"
    try:
        notes = list(read_parity(build(recipe, output, cache=cache, progress=show)).notes)
    except BuildError as error:
        if not error.code.startswith(("gate.", "quantise.search")):
            raise
        refusal, reports = error.code, output.with_name(f"{output.name}.gate")
    made = output.with_name(f"{output.name}.search") / "search.json"
    found = msgspec.json.decode(made.read_bytes(), type=SearchReport)
    section = trials_table(found)
    for row in (section.columns, *section.rows):
        print("  " + " | ".join(row))
    gates = {
        each.stem: said(msgspec.json.decode(each.read_bytes(), type=GateReport))
        for each in sorted(reports.rglob("head-*.json"))
    }
    return {
        "images": found.images.images,
        "trials": msgspec.to_builtins(found.trials),
        "keep": found.keep,
        "refusal": refusal,
        "gates": gates,
        "notes": notes,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with cxr/")
    parser.add_argument("-o", "--output", type=Path, help="result file")
    parser.add_argument("--cache", type=Path, help="folder of finished stages, to go on after a stop")
    options = parser.parse_args()

    def show(stage: str, message: str, fraction: float) -> None:
        print(f"{fraction:4.0%} {stage}: {message}", flush=True)

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cache, recipe = options.cache or folder / "cache", write_recipe(options.data, folder)
        ranked = rank_layers(recipe, cache=cache, progress=show)
        content = {
            "machine": {**machine(), "class": machine_class()},
            "images": SOURCES,
            "ranking": msgspec.to_builtins(ranked),
            "search": search(recipe, folder, cache, show),
        }
    if options.output:
        save(options.output, content)
        plot = bars(ranked.sensitivity, standalone=True)
        options.output.with_suffix(".svg").write_text(plot + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
