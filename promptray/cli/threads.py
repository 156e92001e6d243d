"""Threads of the commands that score in their own process: of the backend, and of JPEG 2000's decoder."""

from __future__ import annotations

from typing import Any

import click

from promptray.runtime.cores import host_threads, set_decode_threads


class Threads(click.IntRange):
    """A number of threads that this machine can be asked for."""

    def __init__(self) -> None:
        super().__init__(min=1)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Refuse what `host_threads` does not take, as wrong usage and not as a fault."""
        threads = super().convert(value, param, ctx)
        try:
            return host_threads(threads)
        except ValueError as error:
            self.fail(str(error), param, ctx)


threads_option = click.option("--threads", type=Threads(), help="Threads (default: all cores).")


class ScoringCommand(click.Command):
    """A command that decodes images in its own process: with as many threads as it scores with.

    The process is the command's own, and so are those that it starts: what is measured is what scores.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Set the decoder's threads, then run the command."""
        set_decode_threads(ctx.params.get("threads"))
        return super().invoke(ctx)
