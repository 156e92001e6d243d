"""Write the parts of docs/ that the code knows better: error codes and JSON schemas.

usage: write_docs.py [ROOT]
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from promptray.runtime.bundle.manifest import schema as bundle_schema
from promptray.runtime.errors import CODES
from promptray.runtime.result import result_schema

ROOT = Path(__file__).resolve().parent.parent

_GROUPS = {
    "bundle": "Bundles",
    "site": "Site directories",
    "image": "Images",
    "dicom": "DICOM objects",
    "prompt": "Prompts and findings",
    "backend": "Backends",
    "score": "Scoring",
    "recipe": "Recipes",
    "checkpoint": "Checkpoints",
    "text-model": "Text models",
    "export": "Export",
    "gate": "Gates",
    "family": "Families",
    "extra": "Installation",
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

The command line shows the same on stderr and ends with 1. With `--json` it also prints one document
on stdout:

```json
{"schema": "promptray-refusal", "schema_version": 1, "file": "film.dcm", "error": {"code": "image.too-small",
 "message": "...", "artefact": "film.dcm", "expected": "...", "found": "...", "cure": "..."}}
```

`file` is there when the refusal concerns one image of `promptray score`; the other images are still scored.
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


def _json(document: object) -> str:
    return json.dumps(document, indent=2) + "\n"


def pages() -> Mapping[str, str]:
    """Return every written page: name below docs/ -> text."""
    return {
        "errors.md": errors_page(),
        "result.schema.json": _json(result_schema()),
        "bundle.schema.json": _json(bundle_schema()),
    }


if __name__ == "__main__":
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT) / "docs"
    for name, text in pages().items():
        (folder / name).write_text(text, encoding="utf-8", newline="\n")
