"""The files that an ASG model is read from, beside its checkpoint; known without torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from promptray.export.tokenizer import bert_files

#: The encoded tags, for a checkpoint without their frozen text model: ``queries``, float32 (tags, width).
TAG_QUERIES = "tag_queries.safetensors"


def source_files(checkpoint: Path, text_model: Path | None) -> Sequence[Path]:
    """Return the text model's files and, beside them, the encoded tags; some may not exist."""
    return [*bert_files(checkpoint, text_model), *([text_model / TAG_QUERIES] if text_model else [])]
