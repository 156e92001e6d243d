"""How a command that fails ends: what it says on stderr, its exit code, and its error for programs."""

from __future__ import annotations

import os
import traceback

import click

from promptray.cli.output import refuse
from promptray.runtime.errors import PromptRayError

DONE, REFUSED, USAGE, FAULT, INTERRUPTED = 0, 1, 2, 3, 130
_DEBUG = "PROMPTRAY_DEBUG"
_REPORT = (
    f"report it with the output of `promptray doctor`; {_DEBUG}=1 shows the traceback, which may name files"
)


def tell(error: BaseException) -> tuple[int, PromptRayError]:
    """Show on stderr why a command ended.

    Parameters
    ----------
    error : BaseException
        What came out of it.

    Returns
    -------
    int
        Exit code.
    PromptRayError
        The same for ``--json``, without anything that a message of an unforeseen error may hold.
    """
    match error:
        case PromptRayError():
            refuse(error)
            return REFUSED, error
        case click.ClickException():
            error.show()
            wrong = isinstance(error, click.UsageError)
            code, kind = (USAGE, "command.usage") if wrong else (REFUSED, "command.system")
            return code, PromptRayError(kind, error.format_message(), cure="see the command's --help")
        case click.Abort() | KeyboardInterrupt():
            click.echo("Interrupted.", err=True)
            return INTERRUPTED, PromptRayError("command.interrupted", "the command was interrupted")
    if os.environ.get(_DEBUG):
        traceback.print_exception(error)
    if isinstance(error, OSError):
        # The system's own words for a full disk, a missing right or a name too long hold no patient data.
        reason = error.strerror or type(error).__name__
        click.echo(f"Refused by the system: {reason}. What was being worked on has no result.", err=True)
        return REFUSED, PromptRayError("command.system", f"{reason}: what was being worked on has no result")
    # The message of an unforeseen error may hold patient data, so only its type is shown.
    fault = type(error).__name__
    click.echo(
        f"Internal fault: {fault}. No result was given for what was being worked on. Please {_REPORT}.",
        err=True,
    )
    return FAULT, PromptRayError(
        "internal", f"{fault}: no result was given for what was being worked on", cure=_REPORT
    )
