"""Call the command line inside the test's own process."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def documents(self) -> list[Any]:
        """The JSON documents on stdout, which must be one to a line and nothing else."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def images(self) -> list[str]:
        """The image of each document: of a result, or of a refusal."""
        return [item["file"] if "error" in item else item["source"]["name"] for item in self.documents]


Call = Callable[..., Answer]
