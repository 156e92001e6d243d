"""Write the parts of the documents that code and results know better: error codes, schemas, measured numbers.

usage: write_docs.py [ROOT]
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from promptray.calibrate.accept.report import acceptance_schema
from promptray.calibrate.adapt.report import adaptation_schema
from promptray.calibrate.batch.report import batch_schema
from promptray.calibrate.bench.report import bench_schema
from promptray.calibrate.comparison_report import comparison_schema
from promptray.calibrate.evaluation_report import evaluation_schema
from promptray.calibrate.gates.report import gates_schema
from promptray.calibrate.probability.report import calibration_schema
from promptray.calibrate.quantise.search_report import search_schema
from promptray.calibrate.quantise.sensitivity_report import sensitivity_schema
from promptray.runtime.bundle.manifest import schema as bundle_schema
from promptray.runtime.errors import CODES
from promptray.runtime.exam_result import exam_schema
from promptray.runtime.grounding import grounding_schema
from promptray.runtime.result import result_schema
from tools.edge_install.page import measured

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"

_NUMBERS = ("<!-- numbers: begin, written by tools/write_docs.py -->", "<!-- numbers: end -->")
_GROUPS = {
    "bundle": "Bundles",
    "site": "Site directories",
    "image": "Images",
    "dicom": "DICOM objects",
    "decode": "Decoding at a lower resolution",
    "prompt": "Prompts and findings",
    "backend": "Backends",
    "score": "Scoring",
    "exam": "Examinations",
    "batch": "Archives",
    "report": "Radiology reports",
    "recipe": "Recipes",
    "checkpoint": "Checkpoints",
    "text-model": "Text models",
    "export": "Export",
    "gate": "Gates",
    "quantise": "Quantisation",
    "engine": "Engines",
    "repack": "Repacking",
    "family": "Families",
    "table": "Labels, scores and boxes",
    "adapt": "Adapting to a site",
    "output": "Reports",
    "accept": "Acceptance",
    "bench": "Benchmarks",
    "distil": "Distillation",
    "calibration": "Calibration",
    "extra": "Installation",
    "command": "The command line",
    "internal": "Faults",
}
_HEAD = """\
# Error codes

<!-- Written by tools/write_docs.py from runtime/errors.py. Do not edit. -->

Every refusal is a `promptray.PromptRayError` with a `code` of this list. Codes stay the same from version to
version; messages may change, so branch on the code.

```python
from promptray import ImageError, Scorer

with Scorer.open("chest.bundle") as scorer:
    try:
        result = scorer.score("film.dcm")
    except ImageError as error:
        print(error.code, error.artefact, error.expected, error.found, error.cure)
```

The command line shows the same on stderr and ends with 1. With `--json` every command that fails, whatever
the reason (wrong usage, a full disk, an interruption, an internal fault), also prints one document on stdout:

```json
{"schema": "promptray-refusal", "schema_version": 1, "file": "film.dcm", "error": {"code": "image.too-small",
 "message": "...", "artefact": "film.dcm", "expected": "...", "found": "...", "cure": "..."}}
```

`error` always has these six keys; all but `code` and `message` may be `null`. `file` is there when the
refusal concerns one image of `promptray score`; the other images are still scored. A document without `file`
is the last one. A reader that goes away is no failure, and a stdout that takes nothing gets no document.
"""


def errors_page() -> str:
    """Return docs/errors.md."""
    groups: dict[str, list[str]] = {prefix: [] for prefix in _GROUPS}
    for code, meaning in CODES.items():
        groups[code.partition(".")[0]].append(f"| `{code}` | {meaning} |")
    sections = [
        f"\n## {_GROUPS[prefix]}\n\n| code | meaning |\n| --- | --- |\n" + "\n".join(rows) + "\n"
        for prefix, rows in groups.items()
    ]
    return _HEAD + "".join(sections)


def readme() -> str:
    """Return README.md with its numbers taken from the committed results."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    before, rest = text.split(_NUMBERS[0])
    return before + _NUMBERS[0] + "\n" + _numbers() + _NUMBERS[1] + rest.split(_NUMBERS[1])[1]


def _numbers() -> str:
    reference = _read("reference/results.json")
    layout = _read("benchmarks/results/bank_layout.json")
    start = _read("benchmarks/results/start.json")
    pneumonia = reference["results"]["pneumonia against normal"]["pneumonia"]
    shuffled = reference["results"]["shuffled prompts"]
    mixed = layout["191 short prompts and one of 95 words"]
    seconds = start["seconds"]

    def interval(found: Mapping[str, float]) -> str:
        return f"{found['value']:.3f} ({found['low']:.3f} to {found['high']:.3f})"

    def ratio(found: Mapping[str, float]) -> str:
        return f"{found['ratio']:.2f} ({found['ratio_q1']:.2f} to {found['ratio_q3']:.2f})"

    def time(name: str) -> str:
        found = seconds[name]
        return f"{found['median']:.2f} s ({found['min']:.2f} to {found['max']:.2f})"

    folds = reference["run"]["folds"]
    rows = [
        ("Reference model, AUROC of pneumonia, trained wordings", interval(pneumonia["trained"]), "train"),
        ("The same, held-out wordings", interval(pneumonia["held_out"]), "train"),
        ("The same, prompts shuffled", interval(shuffled), "train"),
        ("`from promptray import Scorer`, cold", time("import"), "start"),
        (f"Opening the demo bundle ({start['bundle_bytes'] / 1e6:.0f} MB), with golden check", time("open"),
         "start"),
        ("Python start to first score of a DICOM file, cold process", time("whole process"), "start"),
        ("One 95-word prompt among 191: padding all to the longest, against buckets, head",
         ratio(mixed["head"]["padded to the longest prompt"]), "layout"),
        ("Packed rows against buckets, attention time", ratio(mixed["attention"]["packed"]), "layout"),
        *((what, value, "peers") for what, value in peer_rows(_results("promptray-peers"))),
        *((what, value, "film") for what, value in film_rows()),
        *((what, value, "gpu") for what, value in gpu_rows(_results("promptray-gpu"))),
    ]  # fmt: skip
    commands = {
        "train": f"`python -m reference.train`: {folds}-fold by patient, 95 % interval",
        "start": f"`python -m benchmarks.start`: median (range) of {start['rounds']}",
        "layout": f"`python -m benchmarks.bank_layout`: ratio (quartiles) of {layout['rounds']} rounds, "
        "full-size model",
        "peers": "`python -m benchmarks.peers`: median (quartiles) [95 % interval] of rounds; random weights",
        "film": "`python -m benchmarks.peers.file_to_score`: median (quartiles) of rounds; random weights",
        "gpu": "`make gpu`: fastest median of one image, host to host; full-size models, random weights",
    }
    table = "".join(f"| {what} | {value} | {commands[by]} |\n" for what, value, by in rows)
    where = f"Times: {start['machine']['cores']} cores, {start['machine']['system']}, shared machine."
    return f"| what | measured | by |\n| --- | --- | --- |\n{table}\n{where}\n"


def gpu_rows(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return a row for each model on each card; one that says so where none was measured."""
    if not results:
        return [("One image on a GPU", "not run: no GPU was to be had")]
    rows = []
    for result in results:
        timed = [row for row in result["rows"] if row["latency"]]
        for model in dict.fromkeys(row["model"] for row in timed):
            own = [row for row in timed if row["model"] == model]
            best = min(own, key=lambda row: row["latency"]["p50"])
            how = f"{best['contestant']} {best['version']} {best['precision']}"
            taken = f"{best['latency']['p50']:.2f} ms (p99 {best['latency']['p99']:.2f}), {how}"
            rows.append((f"{model}, {result['gpu']['name']}", taken))
    return rows


def film_rows() -> list[tuple[str, str]]:
    """Return a row for each way of decoding a JPEG 2000 film, with the ratio that was aimed at."""
    rows = []
    for name, how, wanted in (
        ("file_to_score", "at full resolution", 1.4),
        ("file_to_score_reduced", "decoded at a lower resolution", 2.0),
    ):
        found = _read(f"benchmarks/results/{name}.json")
        usual = found["bundles"][-1]["total"]["usual"]  # of the full-size model
        side = " x ".join(map(str, found["film"]["size"]))
        ratio = f"{usual['ratio']:.2f} ({usual['ratio_q1']:.2f}-{usual['ratio_q3']:.2f})"
        missed = "" if usual["ratio"] >= wanted else ", MISSED"
        what = (
            f"File to score of a {found['film']['syntax']} film of {side}, CARZero: time of pydicom, "
            f"pylibjpeg, NumPy and ONNX Runtime over PromptRay's, {how}"
        )
        rows.append((what, f"{ratio}; target >= {wanted:g}{missed}"))
    return rows


def peer_rows(results: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return a row for each target that was measured against peers."""
    return [
        (each["what"], f"{each['found']}; target {each['wanted']}{'' if each['met'] else ', MISSED'}")
        for result in results
        for each in result["targets"]
    ]


def _results(schema: str) -> list[dict[str, Any]]:
    """Return the committed result files of a schema."""
    found = [_read(f"benchmarks/results/{path.name}") for path in sorted(RESULTS.glob("*.json"))]
    return [each for each in found if each.get("schema") == schema]


def edge_install_page() -> str:
    """Return docs/edge-install.md with its figures taken from the committed result."""
    text = (ROOT / "docs" / "edge-install.md").read_text(encoding="utf-8")
    return measured(text, _read("benchmarks/results/edge_install.json"))


def _read(path: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / path).read_text(encoding="utf-8"))
    return content


def _json(document: object) -> str:
    return json.dumps(document, indent=2) + "\n"


def pages() -> Mapping[str, str]:
    """Return every written page: name -> text."""
    return {
        "docs/errors.md": errors_page(),
        "docs/edge-install.md": edge_install_page(),
        "docs/result.schema.json": _json(result_schema()),
        "docs/exam.schema.json": _json(exam_schema()),
        "docs/grounding.schema.json": _json(grounding_schema()),
        "docs/bundle.schema.json": _json(bundle_schema()),
        "docs/batch.schema.json": _json(batch_schema()),
        "docs/evaluation.schema.json": _json(evaluation_schema()),
        "docs/acceptance.schema.json": _json(acceptance_schema()),
        "docs/adaptation.schema.json": _json(adaptation_schema()),
        "docs/bench.schema.json": _json(bench_schema()),
        "docs/comparison.schema.json": _json(comparison_schema()),
        "docs/gates.schema.json": _json(gates_schema()),
        "docs/calibration.schema.json": _json(calibration_schema()),
        "docs/sensitivity.schema.json": _json(sensitivity_schema()),
        "docs/search.schema.json": _json(search_schema()),
        "README.md": readme(),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT)
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
