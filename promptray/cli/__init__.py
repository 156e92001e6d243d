"""The command line. One file per command, imported only when that command runs.

Exit codes: 0 done; 1 an input or a gate was refused; 2 wrong usage; 3 an internal fault; 130 interrupted.
Results go to stdout, everything else to stderr.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
import traceback
from collections.abc import Sequence

import click

from promptray.cli.output import print_json, refuse
from promptray.runtime.errors import PromptRayError

DONE, REFUSED, USAGE, FAULT, INTERRUPTED = 0, 1, 2, 3, 130
_DEBUG = "PROMPTRAY_DEBUG"
#: Command -> (module below promptray.cli, help line). In the order in which they are needed.
_COMMANDS: dict[str, tuple[str, str]] = {
    "families": ("families", "What can be loaded, and from which checkpoint layout."),
    "build": ("build", "Build a bundle from a recipe: checkpoint -> verified bundle."),
    "inspect": ("inspect", "What is in a bundle: model, findings, gates passed, provenance, site."),
    "verify": ("verify", "Check a bundle: every hash, the schema, the golden self-test on this machine."),
    "prompts": ("prompts", "List, add, remove, restore, import and export the findings of a bundle."),
    "packs": ("packs", "List the shipped prompt packs: published findings with their wordings."),
    "align": ("align", "Bring free diagnostic wordings to the form that prompts have."),
    "score": ("score", "Score images with a bundle."),
    "ground": ("ground", "Ask a region of an image about findings: its map, pooled over a box."),
    "exam": ("exam", "Score the views of one examination together, by the bundle's rule."),
    "check": ("check", "List where a report and the scores of its image disagree."),
    "evaluate": ("evaluate", "Measure a bundle on labelled images: AUROC and more, with intervals."),
    "compare": ("compare", "Compare two bundles, or a bundle and reference scores, on the same images."),
    "adapt": ("adapt", "Adapt a model to labelled images: probe, fine-tuning, each a bundle, side by side."),
    "doctor": ("doctor", "What this machine can run, to paste in a bug report."),
}


class _LazyGroup(click.Group):
    """Knows its commands' names and help without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module, _ = _COMMANDS[name]
        command: click.Command = importlib.import_module(f"promptray.cli.{module}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
    epilog="Exit codes: 0 done, 1 refused, 2 usage, 3 internal fault. PROMPTRAY_DEBUG=1 shows tracebacks.",
)
@click.version_option(package_name="promptray")
def cli() -> None:
    """Turn trained medical image-text models into verified bundles, and score radiographs with them.

    \b
    Examples:
      promptray build recipe.yaml -o chest.bundle
      promptray verify chest.bundle
      promptray score chest.bundle film.dcm --json
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    if sys.stdout is None:  # closed by the caller: results would be lost without a word
        if sys.stderr is not None:
            click.echo("Refused: standard output is closed, so no result could be given.", err=True)
        sys.exit(REFUSED)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a name that the console cannot show must not end a batch
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run(arguments))


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        result = cli.main(args=arguments, prog_name="promptray", standalone_mode=False)
        return result if isinstance(result, int) else DONE
    except PromptRayError as error:
        refuse(error)
        if "--json" in (sys.argv[1:] if arguments is None else arguments):
            print_json({"schema": "promptray-refusal", "schema_version": 1, "error": error.to_json()})
        return REFUSED
    except click.UsageError as error:
        error.show()
        return USAGE
    except click.ClickException as error:
        error.show()
        return REFUSED
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return INTERRUPTED
    except BrokenPipeError:  # the reader of our stdout has gone, as `promptray ... | head` does
        _drop_unwritten_output()
        return DONE
    except OSError as error:
        if os.environ.get(_DEBUG):
            traceback.print_exc()
        # The system's own words for a full disk, a missing right or a name too long hold no patient data.
        reason = error.strerror or type(error).__name__
        click.echo(f"Refused by the system: {reason}. What was being worked on has no result.", err=True)
        _drop_unwritten_output()
        return REFUSED
    except Exception as error:  # noqa: BLE001 - the last door: shown as a fault, exit code 3
        # The message of an unforeseen error may hold patient data, so only its type is shown.
        if os.environ.get(_DEBUG):
            traceback.print_exc()
        click.echo(
            f"Internal fault: {type(error).__name__}. "
            "No result was given for what was being worked on. "
            f"Please report it with the output of `promptray doctor`; {_DEBUG}=1 shows the traceback, "
            "which may name files.",
            err=True,
        )
        return FAULT


def _drop_unwritten_output() -> None:
    """Give Python's own flush at exit a stdout that takes what is left, so that it does not fail again."""
    with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
