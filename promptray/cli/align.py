"""``promptray align``."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path

import click

from promptray.calibrate.reports.align import Proposal, align
from promptray.cli.output import json_option, print_json, visible
from promptray.runtime.errors import PromptError

_KEY = "PROMPTRAY_ALIGN_KEY"


@click.command("align")
@click.argument("wordings", nargs=-1, required=True, metavar="WORDING...")
@click.option("--endpoint", metavar="URL", help="Ask this OpenAI-compatible endpoint instead of the rules.")
@click.option("--model", help="Model to ask for at the endpoint.")
@click.option("--log", type=click.Path(path_type=Path), help="File for questions and answers, to review.")
@json_option
def command(
    wordings: tuple[str, ...], endpoint: str | None, model: str | None, log: Path | None, as_json: bool
) -> None:
    """Bring free diagnostic WORDINGs to the form "There is <finding> [in the <region>]".

    It is the form that CARZero was trained with. What is proposed is shown beside what was written, and added
    to nothing: look at it, then use `promptray prompts BUNDLE add`.

    By default rules do it, on this machine. With --endpoint every WORDING is sent to that address, its answer
    counts only where it has the form, and --log, which is then required, keeps both. The key is read from
    PROMPTRAY_ALIGN_KEY.

    \b
    Examples:
      promptray align "mild cardiomegaly without effusion"
      promptray align "wet lungs" --endpoint https://host/v1 --model NAME --log align.jsonl
    """
    if bool(endpoint) != bool(model) or bool(endpoint) != bool(log):
        raise click.UsageError("--endpoint, --model and --log go together")
    if endpoint and model and log:
        made = _asked(wordings, endpoint, model, log)
    else:
        made = [_by_rules(wording) for wording in wordings]
    if as_json:
        pairs = zip(wordings, made, strict=True)
        print_json(
            {
                "proposals": [
                    {"wording": wording, "aligned": [asdict(each) for each in found]}
                    for wording, found in pairs
                ]
            }
        )
        return
    for wording, found in zip(wordings, made, strict=True):
        click.echo(f"- {visible(wording)}")
        for each in found:
            click.echo(f"+ {each.sentence}    ({_remark(each)})")


def _by_rules(wording: str) -> list[Proposal]:
    try:
        return align(wording)
    except ValueError as error:
        raise PromptError(
            "prompt.form",
            f"nothing in the form can be made of a wording: it is {error}",
            artefact=wording[:80],
            expected="There is <finding> [in the <region>]",
            cure="write it in that form yourself, or shorter",
        ) from error


def _asked(wordings: tuple[str, ...], url: str, model: str, log: Path) -> list[list[Proposal]]:
    from promptray.calibrate.reports.endpoint import Endpoint, append_to_log, ask, proposals

    endpoint = Endpoint(url, model, os.environ.get(_KEY))
    made = []
    for wording in wordings:
        exchange = ask(endpoint, wording)
        append_to_log(log, [exchange])
        for line in exchange.refused:
            click.echo(f"Not in the form, left out: {visible(line[:200])}", err=True)
        made.append(proposals(exchange))
    return made


def _remark(proposal: Proposal) -> str:
    if proposal.existence == "uncertain":
        return "said with doubt; the form has none"
    if proposal.existence == "absent":
        return "denied; a negative prompt did not help the published model"
    return {
        "already": "has the form already",
        "as written": "not in the lexicon, as written",
        "endpoint": "by the endpoint",
        "triplet": "by the lexicon",
    }[proposal.by]
