"""A language model is asked only where the user says, and believed only where it keeps to the form."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from promptray.calibrate.reports.endpoint import Endpoint, append_to_log, ask, proposals
from promptray.runtime.errors import PromptError


class Model:
    """A server on this machine that answers as it is told and keeps what it was sent."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.body: bytes = b""
        self.received: list[tuple[str, dict[str, str], Any]] = []

    def says(self, text: Any) -> None:
        self.body = json.dumps({"choices": [{"message": {"content": text}}]}).encode()


@pytest.fixture
def model() -> Iterator[tuple[Model, str]]:
    told = Model()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.received.append((self.path, dict(self.headers), content))
            self.send_response(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(told.body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield told, f"http://127.0.0.1:{server.server_port}/v1"
        server.shutdown()


def test_only_sentences_in_the_form_are_accepted(model: tuple[Model, str], tmp_path: Path) -> None:
    told, url = model
    told.says("- There is pulmonary edema\nSure! Here you go.\n\nThere is no effusion in the left pleura.")
    exchange = ask(Endpoint(url, "m", key="secret"), "wet lungs")
    assert exchange.accepted == ["There is pulmonary edema", "There is no effusion in the left pleura."]
    assert exchange.refused == ["Sure! Here you go."]
    assert [(each.existence, each.by) for each in proposals(exchange)] == [
        ("present", "endpoint"),
        ("absent", "endpoint"),
    ]
    ((path, headers, content),) = told.received
    assert (path, headers["Authorization"], content["model"]) == (
        "/v1/chat/completions",
        "Bearer secret",
        "m",
    )
    assert content["messages"][-1] == {"role": "user", "content": "wet lungs"}

    append_to_log(tmp_path / "log.jsonl", [exchange])
    append_to_log(tmp_path / "log.jsonl", [exchange])
    lines = (tmp_path / "log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["wording"] for line in lines] == ["wet lungs", "wet lungs"]
    assert "secret" not in "".join(lines)


@pytest.mark.parametrize(
    "url", ["http://example.org/v1", "file:///etc/passwd", "ftp://localhost", "example.org", ""]
)
def test_an_address_without_encryption_is_not_asked(url: str) -> None:
    with pytest.raises(PromptError, match="not allowed") as caught:
        ask(Endpoint(url, "m"), "wet lungs")
    assert caught.value.code == "prompt.endpoint"


def test_a_redirect_is_not_followed(model: tuple[Model, str]) -> None:
    told, url = model
    told.status, told.headers = 307, {"Location": f"{url}/elsewhere"}
    with pytest.raises(PromptError, match="HTTP status 307"):
        ask(Endpoint(url, "m", key="secret"), "wet lungs")
    assert len(told.received) == 1


@pytest.mark.parametrize(
    "body", [b"", b"nonsense", b"[]", b'{"choices": []}', b'{"choices": [{"message": {}}]}']
)
def test_an_answer_in_another_format_is_refused(model: tuple[Model, str], body: bytes) -> None:
    told, url = model
    told.body = body
    with pytest.raises(PromptError, match="did not answer as it should") as caught:
        ask(Endpoint(url, "m"), "of Jane Doe")
    assert "Jane" not in str(caught.value)


def test_an_answer_that_is_no_text_and_a_fault_are_refused(model: tuple[Model, str]) -> None:
    told, url = model
    told.says(None)
    with pytest.raises(PromptError, match="NoneType"):
        ask(Endpoint(url, "m"), "wet lungs")
    told.status = 500
    with pytest.raises(PromptError, match="HTTP status 500"):
        ask(Endpoint(url, "m"), "wet lungs")
