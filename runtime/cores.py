"""How many threads a call on the host may have."""

from __future__ import annotations

import os

#: The environment variable that OpenJPEG takes its number of threads from when it decodes; without it: one.
DECODE_THREADS = "OPJ_NUM_THREADS"


def host_threads(threads: int | None) -> int:
    """Return the threads of one call: as asked for, or every core that this process may use.

    Raises
    ------
    ValueError
        For none, or for many times more than there are cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    most = max(8, 4 * cores)
    if threads is not None and not 1 <= threads <= most:
        raise ValueError(f"threads must be 1 to {most} on this machine")
    return threads or cores


def set_decode_threads(threads: int | None) -> None:
    """Let OpenJPEG decode with as many threads as a call scores with; whoever set the variable knows better.

    For a process that is promptray's own (a command, a worker of ``promptray batch``) and no other.
    """
    os.environ.setdefault(DECODE_THREADS, str(host_threads(threads)))
