"""Alignment by a language model behind an OpenAI-compatible endpoint that the user names.

Never called unless asked for, and never when an image is scored. What it answers counts only where it has the
form; every question and answer goes to a log that can be reviewed.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from promptray.calibrate.reports.align import Proposal, in_form
from promptray.runtime.errors import PromptError

_LARGEST_ANSWER = 2**20  # bytes
_LOCAL = ("localhost", "127.0.0.1", "::1")
_TASK = (
    "Rewrite the radiological wording as one or more short sentences, each on a line of its own and each of "
    "exactly one of the forms 'There is <finding>', 'There is <finding> in the <region>', "
    "'There is no <finding>'. "
    "Add nothing that the wording does not say. Answer with the sentences only."
)


@dataclass(frozen=True)
class Endpoint:
    """Where to ask.

    Attributes
    ----------
    url : str
        Base address, ``https://host/v1``; plain ``http`` only for this machine.
    model : str
    key : str or None
        Sent as bearer token; never logged.
    timeout : float
        Seconds.
    """

    url: str
    model: str
    key: str | None = None
    timeout: float = 30.0


@dataclass(frozen=True)
class Exchange:
    """One question and its answer, as the log has it."""

    time: str
    endpoint: str
    model: str
    wording: str
    accepted: list[str]
    refused: list[str]


def ask(endpoint: Endpoint, wording: str) -> Exchange:
    """Ask the endpoint to align one wording. THE WORDING LEAVES THIS MACHINE.

    Raises
    ------
    PromptError
        ``prompt.endpoint`` when the address is not allowed, or it does not answer as it should.
    """
    lines = [line.strip(" \t-•*") for line in _answer(endpoint, wording).splitlines() if line.strip()]
    return Exchange(
        time=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        endpoint=endpoint.url,
        model=endpoint.model,
        wording=wording,
        accepted=[line for line in lines if in_form(line)],
        refused=[line for line in lines if not in_form(line)],
    )


def proposals(exchange: Exchange) -> list[Proposal]:
    """Return the accepted sentences."""
    return [
        Proposal(each, None, "absent" if each.startswith("There is no ") else "present", "endpoint")
        for each in exchange.accepted
    ]


def append_to_log(log: Path, exchanges: Sequence[Exchange]) -> None:
    """Append exchanges to a file of JSON lines; it holds the wordings, so keep it where those may be."""
    with log.open("a", encoding="utf-8") as file:
        for exchange in exchanges:
            file.write(json.dumps(asdict(exchange)) + "\n")


def _answer(endpoint: Endpoint, wording: str) -> str:
    _require_allowed(endpoint.url)
    messages = [{"role": "system", "content": _TASK}, {"role": "user", "content": wording}]
    body = json.dumps({"model": endpoint.model, "messages": messages, "temperature": 0}).encode()
    headers = {"Content-Type": "application/json"}
    if endpoint.key:
        headers["Authorization"] = f"Bearer {endpoint.key}"
    request = urllib.request.Request(f"{endpoint.url.rstrip('/')}/chat/completions", body, headers)  # noqa: S310 - https, or this machine
    try:
        with _OPENER.open(request, timeout=endpoint.timeout) as response:
            content: Any = json.loads(response.read(_LARGEST_ANSWER))
        text = content["choices"][0]["message"]["content"]
    except urllib.error.HTTPError as error:
        raise _refusal(endpoint, f"HTTP status {error.code}") from None
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise _refusal(endpoint, type(error).__name__) from None
    if not isinstance(text, str):
        raise _refusal(endpoint, type(text).__name__)
    return text


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key and the wording to where the user did not send them."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER = urllib.request.build_opener(_NoRedirect)


def _require_allowed(url: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in _LOCAL):
        return
    raise PromptError(
        "prompt.endpoint",
        "the address is not allowed",
        artefact=url[:200],
        expected="https://..., or http:// on this machine",
        cure="name an endpoint that encrypts",
    )


def _refusal(endpoint: Endpoint, found: str) -> PromptError:
    return PromptError(
        "prompt.endpoint",
        "the endpoint did not answer as it should",
        artefact=endpoint.url[:200],
        expected="a chat completion in OpenAI's format",
        found=found,
        cure="check address, model and key; or leave the endpoint out: the rules need none",
    )
