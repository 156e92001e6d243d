"""Hostile prompts, keys, and files of exported prompts."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable

#: Attack -> (key, prompt) given to ``prompts.add``.
TEXTS: dict[str, tuple[str, str]] = {
    "prompt: nothing": ("k", ""),
    "prompt: white space": ("k", " \t\n\u00a0\u2003"),
    "prompt: a megabyte": ("k", "There is a finding. " * 50_000),
    "prompt: control characters only": ("k", "\x01\x02\x1b[31m\x7f"),
    "prompt: emoji only": ("k", "\U0001f600 \U0001f4a9"),
    "prompt: half a character": ("k", "There is \ud800 pneumonia."),
    "prompt: NUL": ("k", "There is\x00pneumonia."),
    "prompt: written right to left": ("k", "There is \u202eainomuenp."),
    "prompt: marks without letters": ("k", "\u0300" * 5000),
    "prompt: terminal escape": ("k", "There is \x1b]0;evil\x07 pneumonia."),
    "key: nothing": ("", "There is pneumonia."),
    "key: path": ("../../etc/passwd", "There is pneumonia."),
    "key: backslash": ("a\\b", "There is pneumonia."),
    "key: NUL": ("a\x00b", "There is pneumonia."),
    "key: line feed": ("a\n", "There is pneumonia."),
    "key: right to left": ("a\u202eb", "There is pneumonia."),
    "key: half a character": ("\ud800", "There is pneumonia."),
    "key: not composed": ("e\u0301", "There is pneumonia."),
    "key: invisible twin": ("rib\u200b", "There is pneumonia."),
    "key: too long": ("k" * 129, "There is pneumonia."),
}


def _metadata(**changes: object) -> Callable[[bytes], bytes]:
    def change(content: bytes) -> bytes:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(content[8 : 8 + length])
        header["__metadata__"].update(changes)
        raw = json.dumps(header).encode()
        return struct.pack("<Q", len(raw)) + raw + content[8 + length :]

    return change


#: Attack -> change of a good file of exported prompts.
EXPORTS: dict[str, Callable[[bytes], bytes]] = {
    "export: nothing": lambda _: b"",
    "export: cut": lambda content: content[:-4],
    "export: longer": lambda content: content + b"\0",
    "export: a changed value": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "export: header of 2**63 bytes": lambda content: struct.pack("<Q", 2**63) + content[8:],
    "export: header nested": lambda _: struct.pack("<Q", 10**5) + b"[" * 10**5,
    "export: another model's": _metadata(bank_id="0" * 64),
    "export: no prompts": _metadata(prompts="[]"),
    "export: prompts nested": _metadata(prompts="[" * 100_000),
    "export: prompts not JSON": _metadata(prompts="PLANTED"),
    "export: another prompt": _metadata(prompts='[{"key": "evil"}]'),
    "export: pickle": lambda _: b"\x80\x04cos\nsystem\n(S'true'\ntR.",
    "export: picture": lambda _: b"\x89PNG\r\n\x1a\n",
}
