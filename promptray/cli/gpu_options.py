"""The options of commands that score on a GPU."""

from __future__ import annotations

import click

from promptray.runtime.backends import HOST, GpuOptions

cuda_graphs_option = click.option(
    "--no-cuda-graphs",
    is_flag=True,
    help="On a GPU: queue every layer anew, for a library whose work cannot be recorded.",
)


def gpu_options(no_cuda_graphs: bool, backend: str | None) -> GpuOptions | None:
    """Return the ``gpu`` argument of ``Scorer.open`` for the option; None where it was not given."""
    if no_cuda_graphs and backend == HOST:
        raise click.UsageError(f"--no-cuda-graphs is for a backend of a GPU, not for {HOST}")
    return GpuOptions(cuda_graphs=False) if no_cuda_graphs else None
