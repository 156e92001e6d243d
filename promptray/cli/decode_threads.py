"""Threads of JPEG 2000's decoder, the same for every command that scores."""

from __future__ import annotations

import os

from promptray.runtime.cores import DECODE_THREADS, host_threads


def set_decode_threads(threads: int | None) -> None:
    """Let OpenJPEG decode with as many threads as a call scores with; whoever set the variable knows better.

    The process is the command's own, and so are those that it starts: what is measured is what scores.
    """
    os.environ.setdefault(DECODE_THREADS, str(host_threads(threads)))
