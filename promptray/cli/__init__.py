"""The command line. One file per command, imported only when that command runs.

Exit codes: 0 done; 1 an input or a gate was refused; 2 wrong usage; 3 an internal fault; 130 interrupted.
Results go to stdout, everything else to stderr. With --json a command that does not end well prints its error
on stdout, too.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import sys
from collections.abc import Sequence
from itertools import takewhile
from typing import Any

import click

from promptray.cli.failure import DONE, REFUSED, tell
from promptray.cli.output import print_refusal

#: Command -> (module below promptray.cli, help line). In the order in which they are needed.
_COMMANDS: dict[str, tuple[str, str]] = {
    "families": ("families", "What can be loaded, and from which checkpoint layout."),
    "build": ("build", "Build a bundle from a recipe: checkpoint -> verified bundle."),
    "sensitivity": ("sensitivity", "Rank the layers of a recipe's model by what quantising them does."),
    "inspect": ("inspect", "What is in a bundle: model, findings, gates passed, provenance, site."),
    "verify": ("verify", "Check a bundle: every hash, the schema, the golden self-test on this machine."),
    "prompts": ("prompts", "List, add, remove, restore, import and export the findings of a bundle."),
    "repack": ("repack", "A bundle and what a site changed of its findings -> a new bundle."),
    "packs": ("packs", "List the shipped prompt packs: published findings with their wordings."),
    "align": ("align", "Bring free diagnostic wordings to the form that prompts have."),
    "score": ("score", "Score images with a bundle."),
    "batch": ("batch", "Score an archive with many workers, resumable, to Parquet files."),
    "ground": ("ground", "Ask a region of an image about findings: its map, pooled over a box."),
    "exam": ("exam", "Score the views of one examination together, by the bundle's rule."),
    "check": ("check", "List where a report and the scores of its image disagree."),
    "evaluate": ("evaluate", "Measure a bundle on labelled images: AUROC and more, with intervals."),
    "compare": ("compare", "Compare two bundles, or a bundle and reference scores, on the same images."),
    "calibrate": ("calibrate", "Probabilities and thresholds of a site, from its own labelled images."),
    "adapt": ("adapt", "Adapt a model to labelled images: probe, fine-tuning, each a bundle, side by side."),
    "engine": ("engine", "Build a bundle's engines for this GPU, gate them on it, and keep them."),
    "bench": ("bench", "Measure file to score: latency by scenario and stage, start, memory, conditions."),
    "tune": ("tune", "Measure how this machine runs a bundle fastest, and keep it for `--backend auto`."),
    "gate-decode": ("gate_decode", "Show on your films that JPEG 2000 may be decoded at a lower resolution."),
    "export-triton": ("export_triton", "A bundle -> a model repository of NVIDIA Triton."),
    "accept": ("accept", "Accept a bundle on this machine, or not: one dated report that can be filed."),
    "doctor": ("doctor", "What this machine can run, to paste in a bug report."),
}


class _ReaderGone(Exception):
    """The reader of our stdout has gone, as in ``promptray ... | head``."""


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

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError as error:  # which click would end with 1, as if something had been refused
            raise _ReaderGone from error

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
    except _ReaderGone:
        _drop_unwritten_output()
        return DONE
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the last door
        code, refusal = tell(error)
        try:
            if _asks_for_json(sys.argv[1:] if arguments is None else arguments):
                print_refusal(refusal)
        except OSError:  # stdout takes nothing more, which may be why the command ended
            _drop_unwritten_output()
        if isinstance(error, OSError):
            _drop_unwritten_output()
        return code


def _asks_for_json(arguments: Sequence[str]) -> bool:
    """Tell whether ``--json`` is among the options, also where it is misused as ``--json=1``."""
    options = takewhile(lambda each: each != "--", arguments)  # what follows is files, whatever their names
    return any(each.partition("=")[0] == "--json" for each in options)


def _drop_unwritten_output() -> None:
    """Give Python's own flush at exit a stdout that takes what is left, so that it does not fail again."""
    with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
