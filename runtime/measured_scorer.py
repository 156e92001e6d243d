"""A scorer for measuring and judging, which may decode at a lower resolution that passed no gate.

The one way around that gate, and no public name: benchmarks, ``promptray bench`` and ``promptray accept``
take it. What they open says in its facts (`BackendFacts.decode`) whether there is a gate.
"""

from __future__ import annotations

import os
from typing import Any

from promptray.runtime.opened_parts import open_parts
from promptray.runtime.scorer import Scorer


def open_measured(path: str | os.PathLike[str], **options: Any) -> Scorer:
    """Open a bundle with the options of :meth:`promptray.Scorer.open`, the gate of decoding aside.

    Raises
    ------
    PromptRayError
        As there, without ``decode.*``.
    """
    return Scorer(open_parts(path, measured=True, **options))
