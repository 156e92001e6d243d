"""Options that several commands have alike, added by one decorator."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def option_set(*options: _Decorator) -> _Decorator:
    """Return a decorator that adds options to a command, which ``--help`` shows in this order."""

    def add(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return add
