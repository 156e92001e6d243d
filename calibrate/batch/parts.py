"""Results as Parquet: files of a fixed number of images, each written whole or not at all.

Which images a part holds follows from its number alone, so no image can be in two of them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from promptray.calibrate.batch.run import RunFacts
from promptray.runtime.disk import write_whole
from promptray.runtime.errors import PromptRayError
from promptray.runtime.result import Refused, Result

_METADATA = b"promptray.run"
_VALUES = ("logit", "softmax", "sigmoid", "probability", "threshold")
_SCORE = pa.struct(
    [("head", pa.string()), ("key", pa.string()), *((each, pa.float64()) for each in _VALUES),
     ("flag", pa.bool_())]
)  # fmt: skip
#: One row for each image; docs/batch.md says what the columns hold.
SCHEMA = pa.schema(
    [
        pa.field("index", pa.int64(), nullable=False),
        pa.field("image", pa.string(), nullable=False),
        pa.field("bundle", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("code", pa.string()),
        ("modality", pa.string()),
        ("frame", pa.int32()),
        ("sop_instance_uid", pa.string()),
        ("series_instance_uid", pa.string()),
        ("study_instance_uid", pa.string()),
        ("notices", pa.list_(pa.string())),
        ("scores", pa.list_(_SCORE)),
    ]
)


@dataclass(frozen=True)
class Part:
    """Some images of a batch.

    Attributes
    ----------
    number : int
    first : int
        Index of its first image among all.
    images : tuple of Path
        As given.
    """

    number: int
    first: int
    images: tuple[Path, ...]

    @property
    def file(self) -> str:
        """Name of its results."""
        return f"part-{self.number:06}.parquet"


def cut(images: Sequence[Path], size: int) -> list[Part]:
    """Divide images into parts."""
    starts = range(0, len(images), size)
    return [Part(number, start, tuple(images[start : start + size])) for number, start in enumerate(starts)]


def row(index: int, image: Path, bundle: str, outcome: Result | Refused) -> dict[str, Any]:
    """Return the row of an image."""
    # A name that is no text (undecodable bytes) has no place in Parquet: those bytes are written out.
    name = os.fspath(image).encode("utf-8", "backslashreplace").decode()
    found: dict[str, Any] = {"index": index, "image": name, "bundle": bundle}
    if isinstance(outcome, Refused):
        return {**found, "status": "refused", "code": outcome.error.code}
    document = outcome.document
    source = document.source
    return {
        **found,
        "status": "scored",
        "modality": source.modality,
        "frame": source.frame,
        "sop_instance_uid": source.sop_instance_uid,
        "series_instance_uid": source.series_instance_uid,
        "study_instance_uid": source.study_instance_uid,
        "notices": [each.code for each in document.notices],
        "scores": [
            {"head": each.head, "key": each.key, "flag": each.score.flag}
            | {name: getattr(each.score, name) for name in _VALUES}
            for each in document.findings
        ],
    }


def write_part(folder: Path, part: Part, rows: Sequence[dict[str, Any]], run: RunFacts) -> None:
    """Write the rows of a part. Where another attempt was faster, its rows stay.

    Raises
    ------
    OSError
    """
    if [each["index"] for each in rows] != list(range(part.first, part.first + len(part.images))):
        raise ValueError("a part is written whole and in order")
    table = pa.Table.from_pylist(list(rows), SCHEMA.with_metadata({_METADATA: run.to_json()}))
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    try:
        write_whole(folder / part.file, sink.getvalue().to_pybytes())
    except FileExistsError:
        return


def read_outcomes(folder: Path, part: Part, run: RunFacts) -> Counter[str | None]:
    """Return how many images of a part have which code; None: a score.

    Raises
    ------
    PromptRayError
        ``batch.state`` where the file does not hold just its images' results of this run.
    """
    try:
        with (folder / part.file).open("rb") as file:  # Arrow takes no path of undecodable bytes
            content = pq.read_table(file, columns=["index", "bundle", "status", "code"])
    except (OSError, pa.ArrowException) as error:
        raise _damaged(part, type(error).__name__) from None
    if (content.schema.metadata or {}).get(_METADATA) != run.to_json():
        raise _damaged(part, "results of another run")
    rows = content.to_pylist()
    if [each["index"] for each in rows] != list(range(part.first, part.first + len(part.images))):
        raise _damaged(part, "other images than it must hold")
    if any(each["bundle"] != run.scorer.bundle for each in rows):
        raise _damaged(part, "scores of another bundle")
    if any((each["status"] == "scored") != (each["code"] is None) for each in rows):
        raise _damaged(part, "a status that contradicts its code")
    return Counter(each["code"] for each in rows)


def require_no_others(folder: Path, parts: Sequence[Part]) -> None:
    """Refuse a folder with Parquet files beside its parts: a reader of the folder would count their rows.

    Raises
    ------
    PromptRayError
        ``batch.state``.
    """
    others = {each.name for each in folder.glob("*.parquet")} - {part.file for part in parts}
    if others:
        raise PromptRayError(
            "batch.state",
            "the folder holds Parquet files that are no part of this batch",
            found=f"{len(others)} files beside {len(parts)} parts",
            cure="move away what is not part-000000.parquet and so on",
        )


def _damaged(part: Part, found: str) -> PromptRayError:
    return PromptRayError(
        "batch.state",
        "a file of results does not hold what it must",
        artefact=part.file,
        expected=f"one row for each of {len(part.images)} images of this run",
        found=found,
        cure="remove the file; the same command scores its images again",
    )
