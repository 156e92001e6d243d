"""A path on the command line, which is never empty."""

from __future__ import annotations

from typing import Any

import click


class NamedPath(click.Path):
    """A path as `click.Path` takes it, but an empty one is wrong usage.

    It comes of a shell variable that is not set, and would name the current folder.
    """

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the path; see `click.Path`."""
        if not str(value):
            self.fail("the path is empty", param, ctx)
        return super().convert(value, param, ctx)
