"""What a batch came to."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from promptray.runtime.json_schema import schema_of


class BatchReport(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The summary of a batch whose every image has a result. Counted from the files themselves."""

    schema: Literal["promptray-batch"] = "promptray-batch"
    schema_version: Literal[1] = 1
    output: str
    """The folder, as given."""
    software: str
    bundle: str
    backend: str
    reason: str
    """Why this backend was chosen."""
    images: int
    scored: int
    refused: dict[str, int]
    """Images without a score, by code."""
    parts: int
    parts_before: int
    """Those that an earlier call had finished."""
    workers: int
    threads: int
    """Of each worker."""
    seconds: float
    """Of this call."""


def batch_schema() -> dict[str, Any]:
    """Return the JSON Schema of the summary."""
    return schema_of(BatchReport)
